; SPDX-License-Identifier: Apache-2.0
;
; What PVHStart.swift holds as bytes: it turns Multiboot's start into PVH's.
;
; The option ROM comes here as to a Multiboot kernel, with EBX at the information that
; MultibootInformation lays out. That has become a start information of PVH's, but for the memory
; map's length and the address of ACPI's tables, which only the firmware knows.

bits 32

MMAP_LENGTH equ 0x2C
MMAP_ADDR equ 0x30
START_INFO equ 0x100
ENTRY equ 0x178

  mov ecx, [ebx + MMAP_LENGTH]
  mov edi, [ebx + MMAP_ADDR]
  xor eax, eax
  xor edx, edx
; Multiboot's entries begin with their size, PVH's end in a reserved word: 24 bytes both, four apart.
.entry:
  sub ecx, 24
  jb .counted
  mov [edi + 24], eax
  add edi, 24
  inc edx
  jmp .entry
.counted:
  mov [ebx + START_INFO + 48], edx
; The RSDP (ACPI, 5.2.5.1).
  mov esi, 0xE0000
.scan:
  cmp dword [esi], 'RSD '
  jne .other
  cmp dword [esi + 4], 'PTR '
  je .found
.other:
  add esi, 16
  cmp esi, 0x100000
  jb .scan
  xor esi, esi
.found:
  mov [ebx + START_INFO + 32], esi
  mov ecx, [ebx + ENTRY]
  add ebx, START_INFO
  jmp ecx
