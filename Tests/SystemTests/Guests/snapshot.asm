; SPDX-License-Identifier: Apache-2.0
; A disk with a number in memory and one in a sector. Of what COM1 receives, "i" adds one to the
; first and writes it to the sector, "q" ends with value 16h. After each other byte, and after "i",
; both are sent, when the timer has ticked: "<0003:0003>".
%include "boot.inc"
main:
  call serial_init
  mov si, ready
  call puts
.next:
  mov dx, COM1 + 5
  in al, dx
  test al, 1
  jz .next
  mov dx, COM1
  in al, dx
  cmp al, 'q'
  je .end
  cmp al, 'i'
  jne .show
  inc word [counter]
  mov ax, [counter]
  mov [buffer], ax
  mov ax, 0x0301
  call disk
.show:
  mov word [buffer], 0xFFFF
  mov ax, 0x0201
  call disk
  push es
  mov ax, 0x40
  mov es, ax
  mov bx, [es:0x6C]
.tick:
  sti
  hlt
  cmp bx, [es:0x6C]
  je .tick
  pop es
  mov al, '<'
  call putc
  mov ax, [counter]
  call puthex
  mov al, ':'
  call putc
  mov ax, [buffer]
  call puthex
  mov al, '>'
  call putc
  jmp .next
.end:
  EXIT 0x16

; Reads or writes sector 40, as AX says.
disk:
  mov bx, buffer
  mov cx, 41
  xor dh, dh
  mov dl, [drive]
  int 0x13
  jc .failed
  ret
.failed:
  EXIT 0x7E

ready: db "ready", 10, 0
counter: dw 0
buffer equ 0xA000
BOOT_END
