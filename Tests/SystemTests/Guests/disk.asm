; SPDX-License-Identifier: Apache-2.0
; Reads and writes sectors in four ways: BIOS calls by cylinder, head and sector, BIOS calls by
; sector number, bus-master DMA with 28-bit and with 48-bit addresses. DiskGuest.swift computes
; what the disk has to hold afterwards. Ends with value 10h, or with the number of the step that
; failed.
%include "boot.inc"

%macro STEP 1
  mov byte [step], %1
%endmacro

; function, sectors, segment, first sector
%macro EXTENDED 4
  mov word [packet.count], %2
  mov word [packet.segment], %3
  mov dword [packet.sector], %4
  mov ax, %1
  call extended
%endmacro

; command, table, direction (8 reads the disk), sectors, first sector
%macro DMA 5
  mov byte [command], %1
  mov dword [table], %2
  mov byte [direction], %3
  mov word [count], %4
  mov dword [sector], %5
  call dma
%endmacro

main:
  call serial_init
  mov si, hello
  call puts

  STEP 1  ; by sector number: 8 sectors from 64 to 128, inverted
  EXTENDED 0x4200, 8, 0x2000, 64
  mov bx, 0x2000
  mov cx, 8 * 128
  call invert
  STEP 2
  EXTENDED 0x4300, 8, 0x2000, 128

  STEP 3  ; far behind what cylinders reach through the old interface
  EXTENDED 0x4200, 8, 0x2000, 200000
  STEP 4
  EXTENDED 0x4300, 8, 0x2000, 200064

  STEP 5  ; by cylinder, head and sector: 4 sectors from 72 to 136
  mov dl, [drive]
  mov ah, 8
  xor di, di
  mov es, di
  int 0x13
  jc fail
  and cx, 0x3F
  mov [per_track], cx
  mov dl, dh
  xor dh, dh
  inc dx
  mov [heads], dx
  mov ax, 72
  call place
  mov ax, 0x0204
  call old
  STEP 6
  mov ax, 136
  call place
  mov ax, 0x0304
  call old

  STEP 7  ; the IDE function by the PCI BIOS, its BAR4, and the same by the ports
  mov ax, 0xB103
  mov ecx, 0x010180
  xor si, si
  int 0x1A
  jc fail
  mov [function], bx
  mov ax, 0xB10A
  mov di, 0x20
  int 0x1A
  jc fail
  mov [bar], ecx
  movzx eax, word [function]
  shl eax, 8
  or eax, 0x80000020
  mov dx, 0xCF8
  out dx, eax
  mov dx, 0xCFC
  in eax, dx
  STEP 8
  cmp eax, [bar]
  jne fail
  and ax, 0xFFFC
  mov [master], ax
  movzx eax, word [function]
  shl eax, 8
  or eax, 0x80000004
  mov dx, 0xCF8
  out dx, eax
  mov dx, 0xCFC
  in ax, dx
  or ax, 5
  out dx, ax

  STEP 9  ; DMA into three pieces, out of them in another order
  DMA 0xC8, gather, 8, 16, 80
  STEP 10
  DMA 0xCA, scatter, 0, 16, 144
  STEP 11  ; with 48-bit addresses
  DMA 0x35, first_piece, 0, 8, 200100

  STEP 12
  xor ebp, ebp
rounds:
  cmp ebp, ROUNDS
  jae flush
  mov eax, ebp
  shl eax, 4
  add eax, 1000
  mov [sector], eax
  mov byte [command], 0xC8
  mov dword [table], whole
  mov byte [direction], 8
  mov word [count], 16
  call dma
  mov bx, 0x3000
  mov cx, 16 * 128
  call invert
  add dword [sector], 2000
  mov byte [command], 0xCA
  mov byte [direction], 0
  call dma
  mov al, '.'
  call putc
%ifdef PACE
  ; The serial port's speed makes a round take 8 ms at least.
  mov cx, 96
.pace:
  mov al, ' '
  call putc
  loop .pace
%endif
  inc ebp
  jmp rounds

flush:
  STEP 13
  mov dx, 0x1F7
  mov al, 0xE7
  out dx, al
  call settle
  mov si, done
  call puts
  EXIT 0x10

fail:
  mov al, [step]
  jmp exit

; Inverts CX words of 4 bytes at BX:0.
invert:
  push es
  mov es, bx
  xor di, di
.next:
  xor dword [es:di], 0xA5A5A5A5
  add di, 4
  loop .next
  pop es
  ret

extended:
  mov dl, [drive]
  mov si, packet
  int 0x13
  jc fail
  ret

; The registers of int 13h for sector AX.
place:
  xor dx, dx
  div word [per_track]
  mov cl, dl
  inc cl
  xor dx, dx
  div word [heads]
  mov dh, dl
  mov ch, al
  shl ah, 6
  or cl, ah
  ret

old:
  mov bx, 0x2000
  mov es, bx
  xor bx, bx
  mov dl, [drive]
  int 0x13
  jc fail
  ret

dma:
  mov dx, [master]
  xor al, al
  out dx, al
  add dx, 2
  mov al, 6
  out dx, al
  add dx, 2
  mov eax, [table]
  out dx, eax
  mov dx, [master]
  mov al, [direction]
  out dx, al
  mov dx, 0x1F6
  mov al, 0xE0
  out dx, al
  call settle
  mov ax, [count]
  mov ebx, [sector]
  cmp byte [command], 0x35
  jne .short
  ; The high halves first: 8 to 15 of the count, 24 to 47 of the sector.
  mov dx, 0x1F2
  mov al, ah
  out dx, al
  inc dx
  mov eax, ebx
  shr eax, 24
  out dx, al
  inc dx
  xor al, al
  out dx, al
  inc dx
  out dx, al
  jmp .low
.short:
  mov eax, ebx
  shr eax, 24
  and al, 15
  or al, 0xE0
  mov dx, 0x1F6
  out dx, al
.low:
  mov dx, 0x1F2
  mov al, [count]
  out dx, al
  inc dx
  mov eax, ebx
  out dx, al
  inc dx
  shr eax, 8
  out dx, al
  inc dx
  shr eax, 8
  out dx, al
  mov dx, 0x1F7
  mov al, [command]
  out dx, al
  mov dx, [master]
  mov al, [direction]
  or al, 1
  out dx, al
  add dx, 2
.wait:
  in al, dx
  test al, 2
  jnz fail
  test al, 4
  jz .wait
  mov dx, [master]
  xor al, al
  out dx, al
; Waits until the drive is idle, and fails when it reports an error.
settle:
  mov dx, 0x1F7
.busy:
  in al, dx
  test al, 0x80
  jnz .busy
  test al, 0x29
  jnz fail
  ret

step: db 0
command: db 0
direction: db 0
align 4
packet:
  db 16, 0
.count: dw 0
  dw 0
.segment: dw 0
.sector: dd 0, 0
bar: dd 0
table: dd 0
sector: dd 0
count: dw 0
function: dw 0
master: dw 0
per_track: dw 0
heads: dw 0
hello: db "disk", 10, 0
done: db 10, "done", 10, 0

; Physical region descriptors: address, byte count, 8000h at the end of a table.
align 16
gather:
  dd 0x30000
  dw 4096, 0
  dd 0x45002
  dw 1022, 0
  dd 0x58000
  dw 3074, 0x8000
align 16
scatter:
  dd 0x58000
  dw 3074, 0
  dd 0x30000
  dw 4096, 0
  dd 0x45002
  dw 1022, 0x8000
align 16
first_piece:
  dd 0x30000
  dw 4096, 0x8000
align 16
whole:
  dd 0x30000
  dw 8192, 0x8000
BOOT_END
