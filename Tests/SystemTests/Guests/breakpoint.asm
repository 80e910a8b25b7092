; SPDX-License-Identifier: Apache-2.0
; A breakpoint in flat protected mode, with a known number in EBX.
%include "rom.inc"
%include "protected.inc"
main:
  PROTECTED code, 0xF0000
bits 32
code:
  mov eax, 16
  mov ds, eax
  mov es, eax
  mov ss, eax
  mov esp, 0x7000
  mov ebx, 0xB0A710AD
  int3
  hlt
ROM_END
