; SPDX-License-Identifier: Apache-2.0
; Ends at once with value 2Ah.
%include "rom.inc"
main:
  mov al, 0x2A
  out EXIT_PORT, al
  hlt
ROM_END
