; SPDX-License-Identifier: Apache-2.0
; Sets mode 13h and says so; after a byte on COM1 it fills the screen ten times, the last time with
; colour 10, and says so; after another it takes plane 1 out of the map mask and writes 20 and then
; 30 to two bytes each.
%include "boot.inc"
main:
  call serial_init
  mov ax, 0x0013
  int 0x10
  mov si, ready_text
  call say
  mov ax, 0xA000
  mov es, ax
  cld
  mov bl, 1
.screen:
  xor di, di
  mov cx, 64000
  mov al, bl
.byte:
  mov [es:di], al
  inc di
  loop .byte
  inc bl
  cmp bl, 11
  jne .screen
  mov si, filled_text
  call say
  mov dx, 0x3C4
  mov ax, 0x0D02
  out dx, ax
  mov word [es:0], 0x1414
  mov ax, 0x0F02
  out dx, ax
  mov word [es:4], 0x1E1E
  mov si, masked_text
  call say
  mov al, 8
  jmp exit
; Says a line and waits for a byte.
say:
  call puts
  mov dx, COM1 + 5
.wait:
  in al, dx
  test al, 1
  jz .wait
  mov dx, COM1
  in al, dx
  ret
ready_text: db "READY", 10, 0
filled_text: db "FILLED", 10, 0
masked_text: db "MASKED", 10, 0
