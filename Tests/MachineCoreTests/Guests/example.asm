; SPDX-License-Identifier: Apache-2.0
; Every way to reach the example device, once.
%include "common.inc"
start:
  cli
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x800
  cld

  ; Live accesses of each width.
  mov dx, 0x560
  mov eax, 0x11223344
  out dx, eax
  in eax, dx
  result 0
  mov ax, 0xABCD
  out dx, ax
  in eax, dx
  result 1
  mov al, 0x42
  out dx, al
  xor eax, eax
  in al, dx
  result 2

  ; A mirrored register.
  mov dx, 0x562
  xor eax, eax
  in al, dx
  result 3

  ; A thousand posted writes, then a live read.
  mov dx, 0x561
  mov cx, 1000
.post:
  out dx, al
  loop .post
  in eax, dx
  result 4

  ; Blocks: 200 words in, ten words out, and their sum.
  mov dx, 0x564
  mov di, 0x2000
  mov cx, 200
  rep insw
  mov si, words
  mov cx, 10
  cs rep outsw
  mov dx, 0x566
  xor eax, eax
  in al, dx
  result 5

  ; Nobody is at 558h.
  mov dx, 0x558
  in eax, dx
  result 6

  ; Interrupt 5 through the interrupt controller, which wakes the processor.
  mov word [0x25 * 4], handler
  mov word [0x25 * 4 + 2], 0xF000
  mov al, 0x11
  out 0x20, al
  mov al, 0x20
  out 0x21, al
  mov al, 0x04
  out 0x21, al
  mov al, 0x01
  out 0x21, al
  mov al, 0xDF
  out 0x21, al
  mov dword [RESULTS + 4 * 7], 0
  mov dx, 0x560
  mov al, 0xEE
  out dx, al
.wait:
  cli
  cmp dword [RESULTS + 4 * 7], 0
  jne .done
  sti                    ; held off until after HLT
  hlt
  jmp .wait
.done:
  finish

handler:
  inc dword [RESULTS + 4 * 7]
  push ax
  mov al, 0x20
  out 0x20, al
  pop ax
  iret

words: dw 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
reset_vector start
