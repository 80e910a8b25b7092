; SPDX-License-Identifier: Apache-2.0
; Sends each byte that COM1 receives back in angle brackets, and ends with value 16h after a "q".
; With DISK it is a disk's, else a firmware. A break is sent back as "[break]".
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
  mov ah, al
  test al, 1
  jz .ready
  mov dx, COM1
  in al, dx
  test ah, 0x10
  jnz .break
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
.break:
  mov si, broken
  call puts
  jmp .next
.end:
  EXIT 0x16
broken: db "[break]", 0
%ifdef DISK
BOOT_END
%else
ROM_END
%endif
