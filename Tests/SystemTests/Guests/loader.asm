; SPDX-License-Identifier: Apache-2.0
; A firmware that puts the file KERNEL at 1 MiB, and jumps to START in flat 32-bit mode.
%include "rom.inc"
%include "protected.inc"
main:
  PROTECTED copy, 0xF0000
bits 32
copy:
  mov ax, 0x10
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov esp, 0x7000
  mov esi, 0xF0000 + image
  mov edi, 0x100000
  mov ecx, image_end - image
  rep movsb
  mov eax, START
  jmp eax
image:
  incbin KERNEL
image_end:
bits 16
ROM_END
