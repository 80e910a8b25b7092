; SPDX-License-Identifier: Apache-2.0
; Draws in mode 13h, says so and waits for a byte; then draws in VBE mode 118h (1024 by 768, true
; colour) through the linear frame buffer, and says so.
%include "boot.inc"
%include "protected.inc"
main:
  call serial_init
  mov ax, 0x0013
  int 0x10
  ; Colour 200 is (63, 32, 0) of 63.
  mov dx, 0x3C8
  mov al, 200
  out dx, al
  inc dx
  mov al, 63
  out dx, al
  mov al, 32
  out dx, al
  xor al, al
  out dx, al
  ; A rectangle of it: x 40 to 59, y 10 to 19.
  mov ax, 0xA000
  mov es, ax
  mov di, 10 * 320 + 40
  mov bx, 10
.row:
  mov cx, 20
  mov al, 200
  rep stosb
  add di, 320 - 20
  dec bx
  jnz .row
  mov si, mode13_text
  call puts
  mov dx, COM1 + 5
.wait:
  in al, dx
  test al, 1
  jz .wait
  mov dx, COM1
  in al, dx

  xor ax, ax
  mov es, ax
  mov ax, 0x4F01
  mov cx, 0x0118
  mov di, 0x9000
  int 0x10
  cmp ax, 0x004F
  mov al, 1
  jne fail
  mov ax, 0x4F02
  mov bx, 0x4118
  int 0x10
  cmp ax, 0x004F
  mov al, 2
  jne fail
  PROTECTED draw, 0
fail:
  jmp exit
bits 32
draw:
  mov eax, 16
  mov ds, eax
  mov es, eax
  mov ss, eax
  movzx esi, byte [0x9000 + 25]
  shr esi, 3
  movzx ebx, word [0x9000 + 16]
  mov edi, [0x9000 + 40]
  ; Pixel (x, y) = (300, 200) and the 15 right of it, blue 10h, green 80h, red F0h.
  imul eax, ebx, 200
  add edi, eax
  imul eax, esi, 300
  add edi, eax
  mov ecx, 16
.pixel:
  mov byte [edi], 0x10
  mov byte [edi + 1], 0x80
  mov byte [edi + 2], 0xF0
  add edi, esi
  dec ecx
  jnz .pixel
  mov esi, vbe_text
  mov edx, COM1
.send:
  lodsb
  test al, al
  jz .stop
  out dx, al
  jmp .send
.stop:
  hlt
  jmp .stop
bits 16
mode13_text: db "mode 13h", 10, 0
vbe_text: db "vbe", 10, 0
BOOT_END
