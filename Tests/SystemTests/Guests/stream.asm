; SPDX-License-Identifier: Apache-2.0
; Sends LINES numbered lines to COM1, polling the line status, and ends with value 15h. With WAIT
; it starts when it has received a byte, and sends that first.
%include "rom.inc"
main:
  call serial_init
%ifdef WAIT
  mov dx, COM1 + 5
.ready:
  in al, dx
  test al, 1
  jz .ready
  mov dx, COM1
  in al, dx
  call putc
%endif
  xor bx, bx
.line:
  mov ax, bx
  call puthex
  mov si, text
  call puts
  inc bx
  cmp bx, LINES
  jb .line
  EXIT 0x15
text: db " the quick brown fox jumps over the lazy dog", 10, 0
ROM_END
