; SPDX-License-Identifier: Apache-2.0
; Reads four sectors from 126 on by PIO, and tells how many came, and the task file after the
; last: status, error, and the address in its three registers. Ends with value 10h.
%include "boot.inc"

main:
  call serial_init
  mov dx, 0x1F6
  mov al, 0xE0
  out dx, al
  mov dx, 0x1F2
  mov al, 4
  out dx, al
  inc dx
  mov al, 126
  out dx, al
  inc dx
  xor al, al
  out dx, al
  inc dx
  out dx, al
  mov dx, 0x1F7
  mov al, 0x20
  out dx, al
  xor bx, bx

wait_sector:
  mov dx, 0x3F6  ; four reads of the alternate status give the drive its 400 ns
  in al, dx
  in al, dx
  in al, dx
  in al, dx
  test al, 0x80
  jnz wait_sector
  test al, 0x08
  jz over
  mov dx, 0x1F0
  mov cx, 256
  xor ax, ax
  mov es, ax
  mov di, 0x8000
  rep insw
  inc bh
  jmp wait_sector

over:
  mov al, bh
  call puthex2
  mov dx, 0x1F7
  in al, dx
  call puthex2
  mov dx, 0x1F1
  in al, dx
  call puthex2
  mov dx, 0x1F5
  in al, dx
  call puthex2
  mov dx, 0x1F4
  in al, dx
  call puthex2
  mov dx, 0x1F3
  in al, dx
  call puthex2
  mov al, 10
  call putc
  EXIT 0x10

; Sends AL as a space and four hexadecimal digits.
puthex2:
  push ax
  mov al, ' '
  call putc
  pop ax
  xor ah, ah
  jmp puthex

BOOT_END
