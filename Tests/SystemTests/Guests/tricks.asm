; SPDX-License-Identifier: Apache-2.0
; What programs of the DOS age did to the chips of a PC without asking the BIOS. Everything that is
; found is said on COM1, as far as it does not hang on the clock. The same on every PC.
%include "boot.inc"

%macro SAY 1
  jmp %%over
%%text: db %1, 0
%%over:
  mov si, %%text
  call puts
%endmacro

; port, value
%macro OUTB 2
  mov dx, %1
  mov al, %2
  out dx, al
%endmacro

; port: says what it reads
%macro READ 1
  mov dx, %1
  in al, dx
  call byte_out
%endmacro

main:
  call serial_init
  cli

  SAY "timer"
  ; Channel 2 with its gate shut, in each mode: the status of a read-back command, and the count.
  OUTB 0x61, 0
%assign mode 0
%rep 6
  OUTB 0x43, 0xB0 | mode << 1
  OUTB 0x42, 0x34
  OUTB 0x42, 0x12
  OUTB 0x43, 0xE8  ; the status of channel 2
  in al, 0x42
  and al, 0x3F  ; QEMU knows no null count, and has the output low in the modes 2 to 5
  call byte_out
%assign mode mode + 1
%endrep
  ; Mode 0 starts with its output low, which goes high when the count is through.
  OUTB 0x61, 1
  OUTB 0x43, 0xB0
  OUTB 0x42, 0xFF
  OUTB 0x42, 0x00
.low:
  in al, 0x61
  test al, 0x20
  jz .low
  and al, 0x2F
  call byte_out
  ; The refresh bit toggles for ever.
  mov cx, 20
  in al, 0x61
  mov ah, al
.toggle:
  in al, 0x61
  xor al, ah
  test al, 0x10
  jz .toggle
  xor ah, 0x10
  loop .toggle
  ; A square wave counts down by twos: all latched counts are even.
  OUTB 0x43, 0x36
  OUTB 0x40, 0
  OUTB 0x40, 0
  mov cx, 50
  xor bl, bl
.latch:
  OUTB 0x43, 0x00
  in al, 0x40
  or bl, al
  in al, 0x40
  loop .latch
  mov al, bl
  and al, 1
  call byte_out
  call newline

  SAY "interrupts"
  ; Other vectors, all masked but the timer.
  OUTB 0x20, 0x11
  OUTB 0x21, 0x50
  OUTB 0x21, 0x04
  OUTB 0x21, 0x01
  OUTB 0xA0, 0x11
  OUTB 0xA1, 0x58
  OUTB 0xA1, 0x02
  OUTB 0xA1, 0x01
  OUTB 0xA1, 0xFF
  OUTB 0x21, 0xFE
  READ 0x21
  READ 0xA1
  mov word [0x50 * 4], tick
  mov word [0x50 * 4 + 2], 0
  mov byte [ticks], 0
  sti
.tick:
  hlt
  cmp byte [ticks], 3
  jb .tick
  cli
  mov al, [service]
  call byte_out
  ; The timer is pending: seen in the request register, and taken by a poll.
  OUTB 0x20, 0x0A
.pending:
  in al, 0x20
  test al, 1
  jz .pending
  and al, 1
  call byte_out
  OUTB 0x20, 0x0C
  READ 0x20
  OUTB 0x20, 0x0B
  READ 0x20
  OUTB 0x20, 0xA0  ; ends it, and makes it the lowest
  READ 0x20
  OUTB 0x20, 0x0C
  in al, 0x20
  OUTB 0x20, 0x20
  ; Special mask mode, and back.
  OUTB 0x20, 0x68
  OUTB 0x20, 0x48
  OUTB 0x20, 0xC7  ; the priorities as they were
  READ 0x21
  call newline

  SAY "display"
  ; All registers of the CRT controller, then some that are changed and locked.
  mov ax, 3
  int 0x10
  cli
  xor bl, bl
.crtc:
  mov dx, 0x3D4
  mov al, bl
  out dx, al
  cmp bl, 0x0E  ; the cursor is where the BIOS left it
  je .skip
  cmp bl, 0x0F
  je .skip
  inc dx
  in al, dx
  call byte_out
.skip:
  inc bl
  cmp bl, 0x19
  jb .crtc
  mov dx, 0x3D4
  mov ax, 0x550A
  out dx, ax
  mov ax, 0x120C
  out dx, ax
  mov ax, 0x340D
  out dx, ax
  mov ax, 0x0011
  out dx, ax
  mov ax, 0x5A00
  out dx, ax
  mov ax, 0x8011
  out dx, ax
  mov ax, 0xFF00
  out dx, ax
  xor bx, bx
.again:
  mov dx, 0x3D4
  mov al, [changed + bx]
  cmp al, 0xFF
  je .shown
  out dx, al
  inc dx
  in al, dx
  call byte_out
  inc bx
  jmp .again
.shown:
  call newline

  SAY "keyboard"
  ; By polling: the controller, then the keyboard.
  call drain
  OUTB 0x64, 0xAA
  call key
  OUTB 0x64, 0xAB
  call key
  OUTB 0x64, 0x60
  call ready
  OUTB 0x60, 0x00  ; no interrupts, no translation
  OUTB 0x64, 0x20
  call key
  OUTB 0x64, 0xAE
  mov al, 0xEE
  call send
  mov al, 0xF2
  call send
  call key
  call key
  mov al, 0xED
  call send
  mov al, 0x07
  call send
  mov al, 0xF3
  call send
  mov al, 0x20
  call send
  mov al, 0xF0
  call send
  mov al, 0x00
  call send
  call key
  mov al, 0xF0
  call send
  mov al, 0x01
  call send
  mov al, 0xF0
  call send
  mov al, 0x00
  call send
  call key
  mov al, 0xF5
  call send
  mov al, 0xF4
  call send
  mov al, 0xFF
  call send
  call key
  OUTB 0x64, 0xD0
  call key
  call newline

  SAY "DMA and clock"
  ; Channel 1: the flip-flop, address and count.
  OUTB 0x0C, 0
  OUTB 0x02, 0x34
  OUTB 0x02, 0x12
  OUTB 0x03, 0x78
  OUTB 0x03, 0x56
  OUTB 0x0C, 0
  READ 0x02
  READ 0x02
  READ 0x03
  READ 0x03
  OUTB 0x83, 0xA5
  READ 0x83
  OUTB 0x70, 0x8B
  READ 0x71
  OUTB 0x70, 0x8D
  READ 0x71
  OUTB 0x70, 0x8F
  OUTB 0x71, 0x5A
  OUTB 0x70, 0x0F
  READ 0x71
  call newline
  EXIT 0x10

; The timer's handler notes what is in service.
tick:
  push ax
  mov al, 0x0B
  out 0x20, al
  in al, 0x20
  mov [service], al
  mov al, 0x20
  out 0x20, al
  inc byte [ticks]
  pop ax
  iret

; Sends a space and AL.
byte_out:
  push ax
  push cx
  mov ah, al
  mov al, ' '
  call putc
  mov cx, 2
.digit:
  rol ax, 4
  push ax
  and al, 15
  add al, '0'
  cmp al, '9'
  jbe .send
  add al, 'A' - '9' - 1
.send:
  call putc
  pop ax
  loop .digit
  pop cx
  pop ax
  ret

newline:
  mov al, 10
  jmp putc

; Waits until the controller takes a byte.
ready:
  in al, 0x64
  test al, 2
  jnz ready
  ret

drain:
  in al, 0x64
  test al, 1
  jz .empty
  in al, 0x60
  jmp drain
.empty:
  ret

; Says the next byte of the controller.
key:
  in al, 0x64
  test al, 1
  jz key
  in al, 0x60
  jmp byte_out

; Sends AL to the keyboard, and says its answer.
send:
  push ax
  call ready
  pop ax
  out 0x60, al
  jmp key

ticks: db 0
service: db 0
changed: db 0x0A, 0x0C, 0x0D, 0x11, 0x00, 0xFF
BOOT_END
