; SPDX-License-Identifier: Apache-2.0
; Asks the panic port what it takes, and if that is what it should be, panics again and again.
%include "rom.inc"
main:
  mov dx, 0x505
  in al, dx
  cmp al, 3
  jne $
again:
  mov al, 1
  out dx, al
  mov ecx, 20000
wait_a_moment:
  in al, 0x80
  dec ecx
  jnz wait_a_moment
  jmp again
ROM_END
