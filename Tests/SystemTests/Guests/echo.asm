; SPDX-License-Identifier: Apache-2.0
; Sends each byte that COM1 receives back in angle brackets, and ends with value 16h after a "q".
%include "rom.inc"
main:
  call serial_init
.next:
  mov dx, COM1 + 5
.ready:
  in al, dx
  test al, 1
  jz .ready
  mov dx, COM1
  in al, dx
  cmp al, 'q'
  je .end
  push ax
  mov al, '<'
  call putc
  pop ax
  call putc
  mov al, '>'
  call putc
  jmp .next
.end:
  EXIT 0x16
ROM_END
