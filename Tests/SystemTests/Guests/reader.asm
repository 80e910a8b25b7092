; SPDX-License-Identifier: Apache-2.0
; Reads a register for ever, and counts that in the doubleword at 500h.
%include "rom.inc"
main:
  in al, 0x92
  inc dword [es:0x500]
  jmp main
ROM_END
