; SPDX-License-Identifier: Apache-2.0
; Says that it is up, and sleeps.
%include "rom.inc"
main:
  call serial_init
  mov si, text
  call puts
.sleep:
  hlt
  jmp .sleep
text: db "idle", 10, 0
ROM_END
