; SPDX-License-Identifier: Apache-2.0
; Draws noise in one video mode after the other, by BIOS calls and by registers. It says the name
; of each on COM1 and goes on with the next one when a byte comes. The same on every PC.
%include "boot.inc"

; name: says it and waits
%macro SHOW 1
  jmp %%over
%%name: db %1, 10, 0
%%over:
  mov si, %%name
  call show
%endmacro

%macro BIOS 1
  mov ax, %1
  int 0x10
%endmacro

; port, index, value: a register behind an index
%macro SET 3
  mov dx, %1
  mov ax, (%3) << 8 | (%2)
  out dx, ax
%endmacro

; segment, bytes
%macro NOISE 2
  mov ax, %1
  mov es, ax
  xor di, di
  mov cx, %2
  call noise
%endmacro

; segment, signs: text of any attribute, without the signs B0h to BFh. QEMU gives these a ninth
; dot, too; a VGA has it for C0h to DFh only.
%macro TEXT 2
  NOISE %1, 2 * %2
  xor di, di
  mov cx, %2
%%next:
  mov al, [es:di]
  and al, 0xF0
  cmp al, 0xB0
  jne %%kept
  and byte [es:di], 0x7F
%%kept:
  add di, 2
  loop %%next
%endmacro

; bytes of each plane at A0000h
%macro PLANES 1
%assign %%plane 1
%rep 4
  SET 0x3C4, 2, %%plane
  NOISE 0xA000, %1
%assign %%plane %%plane * 2
%endrep
  SET 0x3C4, 2, 0x0F
%endmacro

; index, value: a VBE register of Bochs
%macro VBE 2
  mov dx, 0x1CE
  mov ax, %1
  out dx, ax
  inc dx
  mov ax, %2
  out dx, ax
%endmacro

; bits, enable flags
%macro DISPI 2
  VBE 4, 0
  VBE 1, 320
  VBE 2, 200
  VBE 3, %1
  VBE 4, %2
  VBE 5, 0
  NOISE 0xA000, 0xFFFF
%endmacro

%macro QUIET 0
  mov ah, 1
  mov cx, 0x2000  ; no cursor
  int 0x10
  mov ax, 0x1003
  xor bx, bx  ; no blinking
  int 0x10
%endmacro

main:
  call serial_init

  BIOS 0x0003
  QUIET
  TEXT 0xB800, 2000
  SHOW "text 80"

  ; A second font: every sign one row higher, where bit 3 of the attribute is set.
  mov ax, 0x1130
  mov bh, 6
  int 0x10
  inc bp
  mov ax, 0x1100
  mov bx, 0x1001
  mov cx, 255
  xor dx, dx
  int 0x10
  mov ax, 0x1103
  mov bl, 0x04
  int 0x10
  SHOW "two fonts"

  SET 0x3C4, 1, 0x01
  SHOW "eight dots"

  BIOS 0x0001
  QUIET
  SET 0x3C4, 1, 0x09  ; eight dots, twice each: QEMU has no nine of them
  TEXT 0xB800, 1000
  SHOW "text 40"

  BIOS 0x0007
  mov ah, 1
  mov cx, 0x2000
  int 0x10
  TEXT 0xB000, 2000
  ; Bit 7 of an attribute would blink.
  xor di, di
  mov cx, 2000
.steady:
  and byte [es:di + 1], 0x7F
  add di, 2
  loop .steady
  SHOW "monochrome"

  BIOS 0x0004
  NOISE 0xB800, 16384
  SHOW "CGA 4"

  BIOS 0x0005
  NOISE 0xB800, 16384
  SHOW "CGA 5"

  BIOS 0x0006
  NOISE 0xB800, 16384
  SHOW "CGA 6"

  BIOS 0x000D
  PLANES 8000
  SHOW "planar 0D"

  ; The lower half starts again at address 0, the upper one at 4000: lines are shown twice.
  SET 0x3D4, 0x11, 0x0E
  SET 0x3D4, 0x0C, 4000 >> 8
  SET 0x3D4, 0x0D, 4000 & 0xFF
  SET 0x3D4, 0x18, 199  ; odd, so that no row is cut in two
  SET 0x3D4, 0x07, 0x0F
  SET 0x3D4, 0x09, 0x80
  SHOW "split"

  BIOS 0x000E
  PLANES 16000
  SHOW "planar 0E"

  BIOS 0x0010
  PLANES 28000
  SHOW "planar 10"

  BIOS 0x0012
  PLANES 38400
  SHOW "planar 12"

  SET 0x3D4, 0x13, 50
  SET 0x3D4, 0x0C, 1
  SHOW "wide rows"

  ; A palette of its own, of which colour select takes another part.
  mov dx, 0x3DA
  in al, dx
  mov dx, 0x3C0
  xor bx, bx
.palette:
  mov al, bl
  out dx, al
  mov al, bl
  xor al, 0x2A
  out dx, al
  inc bx
  cmp bx, 16
  jb .palette
  mov al, 0x14
  out dx, al
  mov al, 0x04
  out dx, al
  mov al, 0x12
  out dx, al
  mov al, 0x0D
  out dx, al
  mov al, 0x20
  out dx, al
  call colours
  SHOW "attributes"

  ; Write modes, on top of what is there.
  BIOS 0x0012
  PLANES 38400
  SET 0x3CE, 0, 0x05  ; set/reset: planes 0 and 2
  SET 0x3CE, 1, 0x0D
  SET 0x3CE, 3, 0x13  ; exclusive or, rotated by three
  SET 0x3CE, 8, 0x3C
  mov di, 0
  call strokes
  SET 0x3CE, 3, 0x08  ; and
  mov di, 4000
  call strokes
  SET 0x3CE, 3, 0x11  ; or, rotated by one
  mov di, 8000
  call strokes
  SET 0x3CE, 1, 0
  SET 0x3CE, 3, 0
  SET 0x3CE, 5, 0x01  ; latches only
  mov si, 0
  mov di, 12000
  mov cx, 2000
.copy:
  mov al, [es:si]
  mov [es:di], al
  inc si
  inc di
  loop .copy
  SET 0x3CE, 5, 0x02  ; a colour
  SET 0x3CE, 8, 0x5A
  mov di, 16000
  call strokes
  SET 0x3CE, 5, 0x03  ; the byte is a mask
  SET 0x3CE, 8, 0xF1
  SET 0x3CE, 3, 0x02
  mov di, 20000
  call strokes
  SET 0x3CE, 5, 0x00
  SET 0x3CE, 8, 0xFF
  SET 0x3CE, 3, 0x00
  SHOW "write modes"

  ; What reads give: the planes one by one, and by colour.
  SET 0x3CE, 4, 0
  call sum
  SET 0x3CE, 4, 1
  call sum
  SET 0x3CE, 4, 2
  call sum
  SET 0x3CE, 4, 3
  call sum
  SET 0x3CE, 2, 0x06
  SET 0x3CE, 7, 0x0E
  SET 0x3CE, 5, 0x08
  call sum
  SET 0x3CE, 5, 0
  SHOW "reads"

  BIOS 0x0013
  NOISE 0xA000, 64000
  call colours
  SHOW "packed 13"

  ; 320 by 240, unchained.
  BIOS 0x0013
  SET 0x3C4, 4, 0x06
  SET 0x3C4, 0, 0x01
  mov dx, 0x3C2
  mov al, 0xE3
  out dx, al
  SET 0x3C4, 0, 0x03
  SET 0x3D4, 0x11, 0x2C
  SET 0x3D4, 0x06, 0x0D
  SET 0x3D4, 0x07, 0x3E
  SET 0x3D4, 0x09, 0x41
  SET 0x3D4, 0x10, 0xEA
  SET 0x3D4, 0x11, 0xAC
  SET 0x3D4, 0x12, 0xDF
  SET 0x3D4, 0x14, 0x00
  SET 0x3D4, 0x15, 0xE7
  SET 0x3D4, 0x16, 0x06
  SET 0x3D4, 0x17, 0xE3
  PLANES 19200
  SHOW "mode X"

  ; The second page.
  SET 0x3D4, 0x0C, 9600 >> 8
  SET 0x3D4, 0x0D, 9600 & 0xFF
  SHOW "page"

  BIOS 0x0013
  call colours
  DISPI 8, 0x01
  SHOW "VBE 8"
  DISPI 8, 0x21
  call colours
  SHOW "VBE 8 wide"
  DISPI 15, 0x01
  SHOW "VBE 15"
  DISPI 16, 0x01
  SHOW "VBE 16"
  DISPI 24, 0x01
  SHOW "VBE 24"
  DISPI 32, 0x01
  SHOW "VBE 32"

  ; A window on a wider picture.
  VBE 6, 400
  VBE 8, 16
  VBE 9, 9
  SHOW "VBE offset"

  VBE 4, 0
  BIOS 0x0003
  QUIET
  TEXT 0xB800, 2000
  SHOW "text again"
  EXIT 0x10

show:
  call puts
  mov dx, COM1 + 5
.wait:
  in al, dx
  test al, 1
  jz .wait
  mov dx, COM1
  in al, dx
  ret

; CX bytes at ES:DI.
noise:
  imul ax, [seed], 25173
  add ax, 13849
  mov [seed], ax
  mov al, ah
  stosb
  loop noise
  ret

; All colours of the DAC.
colours:
  mov dx, 0x3C8
  xor al, al
  out dx, al
  inc dx
  mov cx, 768
.next:
  imul ax, [seed], 25173
  add ax, 13849
  mov [seed], ax
  mov al, ah
  out dx, al
  loop .next
  ret

; 2000 bytes at A000:DI, each after it was read into the latches.
strokes:
  mov ax, 0xA000
  mov es, ax
  mov cx, 2000
.next:
  imul ax, [seed], 25173
  add ax, 13849
  mov [seed], ax
  mov bl, [es:di]
  mov [es:di], ah
  inc di
  loop .next
  ret

; Says the sum of 30000 bytes at A0000h.
sum:
  mov ax, 0xA000
  mov es, ax
  xor di, di
  xor bx, bx
  mov cx, 30000
.next:
  mov al, [es:di]
  xor ah, ah
  rol bx, 1
  add bx, ax
  inc di
  loop .next
  mov ax, bx
  call puthex
  mov al, ' '
  jmp putc

seed: dw 1
BOOT_END
