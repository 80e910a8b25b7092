; SPDX-License-Identifier: Apache-2.0
; 64-bit arithmetic at CPL 0, shown on port 80h.
bits 64
org 0x1000
  mov rax, 0x1122334455667788
  mov r8, rax
  shr r8, 32
  mov rsp, 0x4000
  push r8
  pop rbx
  mov eax, ebx
  out 0x80, eax
  hlt
