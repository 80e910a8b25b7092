; SPDX-License-Identifier: Apache-2.0
; Real mode: arithmetic, strings, segments, far calls, an interrupt through the table.
%include "common.inc"
start:
  cli
  xor ax, ax
  mov ss, ax
  mov sp, 0x800
  mov ds, ax
  mov ax, 0x2000
  mov es, ax
  mov fs, ax
  cld
  ; Arithmetic, with the flags of each.
  mov bx, 0x2000
  mov eax, 0x89ABCDEF
  mov ecx, 0x12345678
%macro flags 0
  pushf
  pop word [bx]
  mov [bx + 2], eax
  add bx, 6
%endmacro
%macro shift_flags 0     ; without AF, which shifts leave undefined
  flags
  and word [bx - 6], ~0x10
%endmacro
  add eax, ecx
  flags
  sbb ax, cx
  flags
  imul eax, ecx, 77
  flags
  rol eax, 7
  shift_flags
  sar ax, 3
  shift_flags
  shld eax, ecx, 5
  shift_flags
  neg al
  flags
  xor edx, edx
  mov esi, 0x1357
  div esi
  mov [bx], edx
  add bx, 4
  bsf edx, eax
  flags
  and word [bx - 6], 0x40  ; ZF; it leaves the others undefined
  btc eax, 9
  shift_flags
  aaa
  daa
  cmp al, ah
  flags
  ; Strings, forwards and backwards.
  mov di, 0x100
  mov ecx, 40
  mov eax, 0xA5A50F0F
  rep stosd
  mov si, 0x2000
  mov di, 0x400
  mov cx, 33
  rep movsw
  std
  mov si, 0x2020
  mov di, 0x500
  mov cx, 16
  rep movsb
  cld
  mov al, 0x0F
  mov di, 0x100
  mov cx, 20
  repe scasb
  mov [bx], cx
  add bx, 2
  flags
  ; Far calls and an interrupt.
  call 0xF000:distant
  mov word [0x60 * 4], handler
  mov word [0x60 * 4 + 2], 0xF000
  pushf
  push cs
  push after
  jmp 0xF000:handler
after:
  enter 16, 0
  leave
  pusha
  popa
  push 0x3456
  pop gs
  les bp, [cs:pointer]
  lahf
  mov dword [0xFF8], 0x600D600D
stop:
  hlt
  jmp stop
pointer:
  dw 0x1234, 0x3000
distant:
  inc dword [0x1F00]
  retf
handler:
  add dword [0x1F04], 5
  iret
reset_vector start
