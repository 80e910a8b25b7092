; SPDX-License-Identifier: Apache-2.0
; Resets the machine by METHOD (1 port CF9h, 2 port 92h, 3 keyboard controller, 4 triple fault,
; 5 the reset register that the FADT names, 6 whatever the operator does), and ends with value
; 20h + METHOD when it is started the second time, which it tells by a byte of the CMOS memory.
; Each time it reports what it finds in the chips, and after the first report it upsets them all.
%include "boot.inc"
%include "protected.inc"

; Writes VALUE to PORT.
%macro PUT 2
  mov dx, %1
  mov al, %2
  out dx, al
%endmacro

main:
  ; The chips come first, while nothing here has touched them.
  mov di, found
  mov si, ports
.port:
  lodsw
  cmp ax, 0xFFFF
  je .indexed
  mov dx, ax
  in al, dx
  and al, [si]
  inc si
  stosb
  jmp .port
.indexed:
  lodsw
  cmp ax, 0xFFFF
  je .functions
  mov dx, ax
  lodsb
  out dx, al
  inc dx
  in al, dx
  stosb
  jmp .indexed
.functions:
  lodsd
  test eax, eax
  jz .memory
  mov dx, 0xCF8
  out dx, eax
  mov dx, 0xCFC
  in eax, dx
  stosd
  jmp .functions
.memory:
  mov dx, 0x602
  in ax, dx
  stosw
  mov dx, 0x1CE
  mov ax, 4
  out dx, ax
  inc dx
  in ax, dx
  stosw
  int 0x12
  stosw
  int 0x11
  stosw
  mov ah, 0x88
  int 0x15
  stosw
  call serial_init
  mov al, 0x7E
  out 0x70, al
  in al, 0x71
  cmp al, 0xA5
  je second
  mov al, 0x7E
  out 0x70, al
  mov al, 0xA5
  out 0x71, al
  mov si, first_text
  call puts
  call report

  mov ax, 0x0013
  int 0x10
  cli
  mov dx, COM1 + 5
.drain:
  in al, dx
  test al, 0x40
  jz .drain
  PUT 0x21, 0xFF
  PUT 0xA1, 0xFF
  PUT 0x4D0, 0xE8
  PUT 0x4D1, 0x0E
  PUT 0x61, 0x03
  PUT COM1 + 3, 0x1F
  PUT COM1 + 1, 0x0F
  PUT COM1 + 7, 0x5A
  PUT 0x70, 0x0B
  PUT 0x71, 0x7A
  mov eax, 0x80000860
  mov dx, 0xCF8
  out dx, eax
  mov dx, 0xCFC
  mov eax, 0x090A0B0C
  out dx, eax
  ; The IDE function is neither decoded nor a bus master.
  mov eax, 0x80000904
  mov dx, 0xCF8
  out dx, eax
  mov dx, 0xCFC
  xor ax, ax
  out dx, ax
  mov dx, 0x602
  mov ax, 0x0121
  out dx, ax
  mov dx, 0x1CE
  mov ax, 4
  out dx, ax
  inc dx
  mov ax, 0x41
  out dx, ax
%if METHOD == 1
  mov dx, 0xCF9
  mov al, 2
  out dx, al
  mov al, 6
  out dx, al
%elif METHOD == 2
  in al, 0x92
  or al, 1
  out 0x92, al
%elif METHOD == 3
  mov al, 0xFE
  out 0x64, al
%elif METHOD == 4
  o32 lidt [none]
  PROTECTED code, 0
bits 32
code:
  mov eax, 0x1238
  mov ds, eax
bits 16
%elif METHOD == 5
  PROTECTED code, 0
bits 32
code:
  mov eax, 16
  mov ds, eax
  ; "RSD PTR " on 16 bytes; the RSDT's address is at 16.
  mov esi, 0xE0000
.pointer:
  cmp dword [esi], 'RSD '
  jne .further
  cmp dword [esi + 4], 'PTR '
  je .root
.further:
  add esi, 16
  cmp esi, 0x100000
  jb .pointer
  jmp stop
.root:
  mov esi, [esi + 16]
  mov ecx, [esi + 4]
  add ecx, esi
  add esi, 36
.entry:
  cmp esi, ecx
  jae stop
  mov ebx, [esi]
  add esi, 4
  cmp dword [ebx], 'FACP'
  jne .entry
  ; RESET_REG_SUP, and RESET_REG in the space of ports (ACPI 6.4, 5.2.9).
  test dword [ebx + 112], 1 << 10
  jz stop
  cmp byte [ebx + 116], 1
  jne stop
  mov edx, [ebx + 120]
  mov al, [ebx + 128]
  out dx, al
stop:
  cli
  hlt
  jmp stop
bits 16
%elif METHOD == 6
  PUT COM1 + 3, 0x03
  mov al, '.'
  call putc
%endif
%if METHOD != 5
  cli
stop:
  hlt
  jmp stop
%endif
second:
  mov si, second_text
  call puts
  call report
  EXIT 0x20 + METHOD

; Sends what was found, in hexadecimal.
report:
  mov si, found
.word:
  lodsw
  call puthex
  cmp si, di
  jb .word
  mov al, 10
  jmp putc

; Ports and which of their bits are no matter of time.
ports:
  dw 0x21
  db 0xFF
  dw 0xA1
  db 0xFF
  dw 0x4D0
  db 0xFF
  dw 0x4D1
  db 0xFF
  dw 0x61
  db 0x0F
  dw 0x92
  db 0xFF
  dw COM1 + 1
  db 0xFF
  dw COM1 + 3
  db 0xFF
  dw COM1 + 4
  db 0xFF
  dw COM1 + 7
  db 0xFF
  dw 0x3CC
  db 0xFF
  dw 0x3C6
  db 0xFF
  dw 0xFFFF
; Registers behind an index.
  dw 0x70
  db 0x0B
  dw 0x3C4
  db 0x04
  dw 0x3CE
  db 0x05
  dw 0x3CE
  db 0x06
  dw 0x3D4
  db 0x01
  dw 0x3D4
  db 0x12
  dw 0x3D4
  db 0x17
  dw 0xFFFF
; Of PCI functions: routing, the commands of IDE and VGA, BARs, PAM.
  dd 0x80000860, 0x80000904, 0x80000920, 0x80000B40, 0x80001004, 0x80001010, 0x80000058
  dd 0x8000005C, 0
none: dw 0
  dd 0
first_text: db "first ", 0
second_text: db "second ", 0
found: times 80 db 0
BOOT_END
