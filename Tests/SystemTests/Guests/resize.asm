; SPDX-License-Identifier: Apache-2.0
; A firmware that does with the first disk what is typed at COM1: "i" asks it by IDENTIFY DEVICE for
; its count of sectors, "w" fills the last of them with a pattern, "r" looks for it there, and "q"
; ends with value 16h.
%include "rom.inc"
%define DISK 0x1F0
%define BUFFER 0x1000
%define PATTERN 0xA55A

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
  cmp al, 'i'
  je show
  cmp al, 'w'
  je fill
  cmp al, 'r'
  je look
  cmp al, 'q'
  jne .next
  EXIT 0x16

show:
  call identify
  mov al, '<'
  call putc
  mov ax, [es:BUFFER + 202]
  call puthex
  mov ax, [es:BUFFER + 200]
  call puthex
  mov al, '>'
  call putc
  jmp main.next

fill:
  call last
  mov al, 0x30  ; WRITE SECTORS
  call command
  jc no
  mov cx, 256
  mov dx, DISK
  mov ax, PATTERN
.word:
  out dx, ax
  loop .word
  call done
  jc no
  mov dx, DISK + 7
  mov al, 0xE7  ; FLUSH CACHE
  out dx, al
  call done
  jc no
  jmp yes

look:
  call last
  mov al, 0x20  ; READ SECTORS
  call command
  jc no
  call fetch
  mov cx, 256
  mov di, BUFFER
  mov ax, PATTERN
  repe scasw
  jne no

yes:
  mov si, .text
  call puts
  jmp main.next
.text: db "[yes]", 0

no:
  mov si, .text
  call puts
  jmp main.next
.text: db "[no]", 0

; Puts the answer of IDENTIFY DEVICE into the buffer.
identify:
  mov dx, DISK + 6
  mov al, 0xE0
  out dx, al
  mov al, 0xEC
  call command
  jc no
fetch:
  mov cx, 256
  mov di, BUFFER
  mov dx, DISK
  rep insw
  ret

; Writes the number of the last sector to the task file.
last:
  call identify
  mov eax, [es:BUFFER + 200]
  dec eax
  mov ebx, eax
  mov dx, DISK + 2
  mov al, 1
  out dx, al
  inc dx
  mov al, bl
  out dx, al
  inc dx
  mov al, bh
  out dx, al
  shr ebx, 16
  inc dx
  mov al, bl
  out dx, al
  inc dx
  mov al, bh
  and al, 0x0F
  or al, 0xE0
  out dx, al
  ret

; Gives the command AL, and waits until data can be moved; the carry tells of an error.
command:
  mov dx, DISK + 7
  out dx, al
.wait:
  in al, dx
  test al, 0x80
  jnz .wait
  test al, 0x01
  jnz bad
  test al, 0x08
  jz .wait
  clc
  ret

; Waits for the end of a command; the carry tells of an error.
done:
  mov dx, DISK + 7
.wait:
  in al, dx
  test al, 0x80
  jnz .wait
  test al, 0x01
  jnz bad
  clc
  ret
bad:
  stc
  ret
ROM_END
