; SPDX-License-Identifier: Apache-2.0
; Suspends to RAM and is woken by the firmware through the waking vector in the FACS, which it
; finds by the tables; says what woke it, and that its memory is as it was. Three times.
%include "boot.inc"
%include "protected.inc"
PATTERN equ 0x200000             ; a mebibyte of numbers
STATUS equ 0x600                 ; PM1_STS
CONTROL equ 0x604                ; PM1_CNT
times_left: db 3
main:
  call serial_init
  PROTECTED fill, 0
bits 32
fill:
  mov ax, 16
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov esp, 0x7C00
  mov edi, PATTERN
  mov ecx, 0x40000
.next:
  mov eax, edi
  imul eax, 0x9E3779B1
  stosd
  loop .next
  ; The root pointer, in steps of 16 bytes below 1 MiB.
  mov esi, 0xE0000
.root:
  cmp dword [esi], 'RSD '
  jne .other
  cmp dword [esi + 4], 'PTR '
  je .found
.other:
  add esi, 16
  cmp esi, 0x100000
  jb .root
  mov al, 1
  jmp fail32
.found:
  mov esi, [esi + 16]            ; RSDT
  mov esi, [esi + 36]            ; its first table
  cmp dword [esi], 'FACP'
  mov al, 2
  jne fail32
  mov esi, [esi + 36]            ; FIRMWARE_CTRL
  cmp dword [esi], 'FACS'
  mov al, 3
  jne fail32
  mov dword [esi + 12], wake     ; firmware_waking_vector
sleep:
  mov dx, 0xB2                   ; SMI_CMD: ACPI mode
  mov al, 0xF1
  out dx, al
  mov dx, STATUS
  mov ax, 0xFFFF
  out dx, ax
  mov dx, CONTROL
  mov ax, 0x2401                 ; SUS_EN, type 1, SCI_EN
  out dx, ax
.never:
  pause
  jmp .never
fail32:
  mov dx, EXIT_PORT
  out dx, al
  jmp $

; The firmware comes here in real mode, CS:IP = address >> 4 : address & 15.
bits 16
align 16
wake:
  jmp 0:.here
.here:
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x7C00
  cld
  call serial_init
  mov si, awake_text
  call puts
  mov dx, STATUS
  in ax, dx
  and al, 0xFE                   ; the timer's overflow may come at any time
  call puthex
  mov al, 10
  call putc
  PROTECTED compare, 0
bits 32
compare:
  mov ax, 16
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov esp, 0x7C00
  mov esi, PATTERN
  mov ecx, 0x40000
.next:
  mov ebx, esi
  imul ebx, 0x9E3779B1
  lodsd
  cmp eax, ebx
  mov al, 4
  jne fail32
  loop .next
  dec byte [times_left]
  jnz sleep
  mov al, 8
  jmp fail32
bits 16
awake_text: db "awake ", 0
BOOT_END
