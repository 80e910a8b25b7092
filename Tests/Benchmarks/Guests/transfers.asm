; SPDX-License-Identifier: Apache-2.0
; A 64 KiB firmware that does one thing, times it with RDTSC, and writes the cycles, shifted right
; by 10 bits, to the debug console: eight hexadecimal digits. Then 16 to the debug exit port ends
; the machine (exit code 33). Assembled with -D PHASE=:
;   0  reads  COUNT times 128 KiB, one after the other, by bus-master DMA and interrupt
;   1  writes COUNT times 128 KiB in the same way
;   2  reads  COUNT times 4 KiB from all over the first 2^16 blocks of 4 KiB
;   3  sends  COUNT times 16 bytes to COM1, each time once the transmitter is empty
;   4  writes COUNT lines of 80 characters to the screen in text mode, and scrolls by CRTC
bits 16
org 0

PRDT equ 0x4000
BMIDE equ 0xC000            ; Bus Master IDE registers, primary channel
FLAG equ 0x5000             ; set by the interrupt handler
BUFFER equ 0x100000

%macro configure 2          ; a PCI configuration write of EAX
  mov eax, 0x80000000 | %1
  mov dx, 0xCF8
  out dx, eax
  mov eax, %2
  mov dx, 0xCFC
  out dx, eax
%endmacro
%macro model 2              ; a model-specific register
  mov ecx, %1
  mov eax, %2
  xor edx, edx
  wrmsr
%endmacro
%macro put 2
  mov dx, %1
  mov al, %2
  out dx, al
%endmacro
%macro indexed 3
  mov dx, %1
  mov ax, %2 | %3 << 8
  out dx, ax
%endmacro

start:
  cli
  cld
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x7000
%if PHASE <= 2
  ; The IDE function: its registers at BMIDE, decoding and bus mastering on, both channels on.
  configure 0x0920, BMIDE | 1
  configure 0x0904, 5
  configure 0x0940, 0x80008000
  mov word [0x76 * 4], interrupt
  mov word [0x76 * 4 + 2], 0xF000
  put 0x20, 0x11
  put 0x21, 0x08
  put 0x21, 0x04
  put 0x21, 0x01
  put 0xA0, 0x11
  put 0xA1, 0x70
  put 0xA1, 0x02
  put 0xA1, 0x01
  put 0x21, 0xFB
  put 0xA1, 0xBF
  ; The local APIC lets the PIC's interrupts through: as x2APIC, which real mode reaches, it is
  ; enabled (SIVR) and has LINT0 as ExtINT.
  model 0x1B, 0xFEE00D00
  model 0x80F, 0x1FF
  model 0x835, 0x700
  put 0x3F6, 0
  put 0x1F6, 0xE0
%if PHASE == 2
  mov dword [PRDT], BUFFER
  mov dword [PRDT + 4], 0x80000000 | 4096
%else
  mov dword [PRDT], BUFFER
  mov dword [PRDT + 4], 0   ; 64 KiB
  mov dword [PRDT + 8], BUFFER + 0x10000
  mov dword [PRDT + 12], 0x80000000
%endif
  mov dx, BMIDE + 4
  mov eax, PRDT
  out dx, eax
%elif PHASE == 3
  put 0x3FB, 3
  put 0x3F9, 0
  put 0x3FA, 7
%else
  ; Text: even addresses are plane 0, odd ones plane 1, seen at B8000h.
  put 0x3C2, 0x67
  indexed 0x3C4, 2, 3
  indexed 0x3C4, 4, 2
  indexed 0x3CE, 5, 0x10
  indexed 0x3CE, 6, 0x0E
  indexed 0x3CE, 8, 0xFF
  indexed 0x3D4, 0x13, 40
  mov ax, 0xB800
  mov es, ax
%endif
  mov ebp, 1                ; the seed
  rdtsc
  push edx
  push eax
  xor ebx, ebx
.next:
  call work
  inc ebx
  cmp ebx, COUNT
  jb .next
  rdtsc
  pop ecx
  sub eax, ecx
  pop ecx
  sbb edx, ecx
  shrd eax, edx, 10
  mov dx, 0x402
  mov cx, 8
.digit:
  rol eax, 4
  push ax
  and al, 15
  cmp al, 10
  jb .number
  add al, 'A' - '0' - 10
.number:
  add al, '0'
  out dx, al
  pop ax
  loop .digit
  mov al, 16
  out 0xF4, al
  hlt

%if PHASE <= 2
; One command.
work:
%if PHASE == 2
  imul ebp, ebp, 1664525
  add ebp, 1013904223
  mov eax, ebp
  shr eax, 16
  shl eax, 3
  mov cl, 8
%else
  mov eax, ebx
  shl eax, 8
  xor cl, cl                ; 256 sectors
%endif
  mov byte [FLAG], 0
  push eax
  put 0x1F2, cl
  pop eax
  mov dx, 0x1F3
  out dx, al
  shr eax, 8
  inc dx
  out dx, al
  shr eax, 8
  inc dx
  out dx, al
  put BMIDE + 2, 6
%if PHASE == 1
  put 0x1F7, 0xCA
  put BMIDE, 1
%else
  put 0x1F7, 0xC8
  put BMIDE, 9
%endif
.wait:
  sti
  hlt
  cli
  cmp byte [FLAG], 0
  je .wait
  put BMIDE, 0
  mov al, [FLAG]
  test al, 0x21             ; device fault or error
  jnz failed
  ret

interrupt:
  push ax
  push dx
  mov dx, 0x1F7
  in al, dx
  or al, 0x80
  mov [FLAG], al
  mov al, 0x20
  out 0xA0, al
  out 0x20, al
  pop dx
  pop ax
  iret

failed:
  mov al, 1
  out 0xF4, al
  hlt
%elif PHASE == 3
work:
  mov dx, 0x3FD
.wait:
  in al, dx
  test al, 0x20
  jz .wait
  mov dx, 0x3F8
  mov cx, 16
  mov al, 'a'
.byte:
  out dx, al
  inc al
  loop .byte
  ret
%else
work:
  ; The line, in the next row of a ring of 200.
  mov eax, ebx
  xor edx, edx
  mov ecx, 200
  div ecx
  imul di, dx, 160
  mov si, dx
  mov ax, 0x0720
  add al, bl
  mov cx, 80
  rep stosw
  ; The first cell shown, and the cursor.
  imul si, si, 80
  mov dx, 0x3D4
  mov ax, si
  mov al, 0x0C
  out dx, ax
  mov ax, si
  shl ax, 8
  mov al, 0x0D
  out dx, ax
  mov ax, si
  mov al, 0x0E
  out dx, ax
  mov ax, si
  shl ax, 8
  mov al, 0x0F
  out dx, ax
  ret
%endif

  times 0xFFF0 - ($ - $$) db 0xF4
  jmp 0xF000:start
  times 0x10000 - ($ - $$) db 0xF4
