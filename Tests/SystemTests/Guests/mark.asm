; SPDX-License-Identifier: Apache-2.0
; A Linux program that makes the empty file MARK, as a proof that it was started.
bits 64
org 0x400000
header:
  db 0x7F, "ELF", 2, 1, 1
  times 9 db 0
  dw 2, 62
  dd 1
  dq start
  dq loaded - header
  dq 0
  dd 0
  dw 64, 56, 1, 0, 0, 0
loaded:
  dd 1, 5
  dq 0, header, header
  dq end - header, end - header
  dq 0x1000
start:
  mov eax, 2  ; open
  mov rdi, mark
  mov esi, 0o101  ; O_WRONLY, O_CREAT
  mov edx, 0o644
  syscall
  mov eax, 60  ; exit
  xor edi, edi
  syscall
mark: db MARK, 0
end:
