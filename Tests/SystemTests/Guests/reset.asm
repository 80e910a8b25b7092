; SPDX-License-Identifier: Apache-2.0
; Resets the machine by METHOD (1 port CF9h, 2 port 92h, 3 keyboard controller, 4 triple fault),
; and ends with value 20h + METHOD when it is started the second time, which it tells by a byte of
; the CMOS memory.
%include "boot.inc"
%include "protected.inc"
main:
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
%endif
  cli
stop:
  hlt
  jmp stop
second:
  mov si, second_text
  call puts
  EXIT 0x20 + METHOD
none: dw 0
  dd 0
first_text: db "first", 10, 0
second_text: db "second", 10, 0
BOOT_END
