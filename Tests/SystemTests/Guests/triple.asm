; SPDX-License-Identifier: Apache-2.0
; A fault in protected mode without an interrupt table, every time it starts.
%include "rom.inc"
%include "protected.inc"
main:
  o32 lidt [none]
  PROTECTED code, 0xF0000
none: dw 0
  dd 0
bits 32
code:
  mov ebx, 0xB0A710AD
%if METHOD == 1
  mov eax, 0x1238
  mov ds, eax
%elif METHOD == 2
  ud2
%elif METHOD == 3
  int 0x30
%elif METHOD == 4
  xor ecx, ecx
  div ecx
%endif
  hlt
ROM_END
