; SPDX-License-Identifier: Apache-2.0
; The A20 gate: what is written at FFFF:0510 and 0000:0500 lies in one place while it is shut.
%include "common.inc"
%macro try 1             ; result %1: the word at 0:500h after a write at FFFF:510h
  mov word [0x500], 0x1111
  mov word [es:0x510], 0x2222
  xor eax, eax
  mov ax, [0x500]
  result %1
%endmacro
%macro keyboard 2        ; command %1, then the data byte %2
  mov al, %1
  out 0x64, al
  mov al, %2
  out 0x60, al
%endmacro
start:
  cli
  xor ax, ax
  mov ds, ax
  mov ss, ax
  mov sp, 0x800
  dec ax
  mov es, ax
  try 0                  ; open after a reset
  keyboard 0xD1, 0xDD
  try 1                  ; shut by the output port
  mov al, 2
  out 0x92, al
  try 2                  ; open by port 92h
  xor al, al
  out 0x92, al
  try 3                  ; shut
  mov al, 0xDF
  out 0x64, al
  try 4                  ; open by the controller's command
  mov al, 0xDD
  out 0x64, al
  try 5                  ; shut
  keyboard 0xD1, 0xDF
  try 6                  ; open by the output port
  keyboard 0x60, 0x45    ; another command's data is nothing to it
  try 7
  mov al, 0xDD
  out 0x64, al
  ; Code as well: the two bytes at 500h are executed at FFFF:510h.
  mov dword [0x500], 0xCB40CB42  ; inc dx, retf
  xor eax, eax
  xor dx, dx
  call 0xFFFF:0x510
  mov ax, dx
  result 8
  finish
reset_vector start
