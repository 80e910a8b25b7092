; SPDX-License-Identifier: Apache-2.0
; Waits for ever.
%include "common.inc"
start:
  cli
.halt:
  hlt
  jmp .halt
reset_vector start
