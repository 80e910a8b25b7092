; SPDX-License-Identifier: Apache-2.0
; Sends each byte that COM1 receives back in angle brackets, and ends with value 16h after a "q".
; With DISK it is a disk's, else a firmware.
%ifdef DISK
%include "boot.inc"
%else
%include "rom.inc"
%endif
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
%ifdef DISK
BOOT_END
%else
ROM_END
%endif
