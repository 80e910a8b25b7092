; SPDX-License-Identifier: Apache-2.0
; All processors read the register that counts its reads, and note every value in a byte map at
; 20000h; a value that comes twice, or with zero, is an error. The map's first 60000 values count.
%include "common.inc"
%define STOP 0x900
%define ERRORS 0x904
%define COUNTS 0x910
start:
  cli
  xor ax, ax
  mov ds, ax
  mov ss, ax
  mov sp, 0x800
  start_others
  mov ebp, 0
  jmp 0x0600:0

others:
  xor ax, ax
  mov ds, ax
  mov ax, 0x2000
  mov es, ax
  ; Which processor this is: the local APIC's number by CPUID.
  mov eax, 1
  cpuid
  shr ebx, 24
  mov bp, bx
  shl bp, 2
.loop:
  cmp dword [STOP], 0
  jne .stop
  mov dx, 0x563
  in eax, dx
  inc dword [ds:bp + COUNTS]
  cmp eax, 60000
  jae .loop
  mov bx, ax
  lock inc byte [es:bx]
  jmp .loop
.stop:
  lock inc dword [RESULTS - 8]
.halt:
  hlt
  jmp .halt
.end:

reset_vector start
