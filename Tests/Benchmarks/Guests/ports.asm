; SPDX-License-Identifier: Apache-2.0
; A 64 KiB firmware that measures port accesses with RDTSC and writes the results to the debug
; console: one line of eight hexadecimal digits per test, in the order of `all`, BATCHES times.
; Then 16 to the debug exit port ends the machine (exit code 33).
;
; Assembled with -D TSC_MHZ=the time stamp counter's rate. A result is the cycles of one batch of
; accesses; the program that reads them has the same table of counts.
bits 16
org 0

BATCHES equ 15
BURST equ 200               ; accesses of a batch without gaps
WARM equ 32                 ; accesses before them that do not count
RESULTS equ 0x2000
SECTOR equ 0x8000

; One test: %1 prepares, %2 is the access, without changes to ECX, DI, SI, BP and EBX.
%macro burst 2
  %1
  mov ecx, WARM
%%warm:
  %2
  dec ecx
  jnz %%warm
  rdtsc
  mov ebx, eax
  %1
  mov ecx, BURST
%%loop:
  %2
  dec ecx
  jnz %%loop
  rdtsc
  sub eax, ebx
  mov [di], eax
  add di, 4
%endmacro

; One test with a gap of %1 microseconds before each of %2 accesses %3.
%macro gaps 3
  xor esi, esi
  mov ecx, %2
%%loop:
  rdtsc
  lea ebx, [eax + %1 * TSC_MHZ]
%%wait:
  rdtsc
  sub eax, ebx
  js %%wait
  rdtsc
  mov ebx, eax
  %3
  rdtsc
  sub eax, ebx
  add esi, eax
  dec ecx
  jnz %%loop
  mov [di], esi
  add di, 4
%endmacro

%macro nothing 0
%endmacro
%macro port 1
  mov dx, %1
%endmacro
%macro read_byte 0
  in al, dx
%endmacro
%macro read_long 0
  in eax, dx
%endmacro
%macro write_byte 0
  out dx, al
%endmacro
%macro keyboard_status 0
  in al, 0x64
%endmacro

%macro configure 2          ; a PCI configuration write of EAX's low byte or all
  mov eax, 0x80000000 | %1
  mov dx, 0xCF8
  out dx, eax
  mov eax, %2
  mov dx, 0xCFC
  out dx, eax
%endmacro

start:
  cli
  cld
  xor ax, ax
  mov ds, ax
  mov es, ax
  mov ss, ax
  mov sp, 0x7000
  ; The power management function's registers at 600h, and on.
  configure 0x0B40, 0x601
  configure 0x0B80, 1
  mov al, 0                 ; CMOS register 0, the seconds
  out 0x70, al
  mov dx, 0x1F6             ; drive 0
  mov al, 0xA0
  out dx, al
  mov di, RESULTS
  mov bp, BATCHES
all:
  burst nothing, nothing            ; 0: the loop itself
  burst {port 0x2F0}, read_byte     ; 1: a port that nobody has
  burst nothing, keyboard_status    ; 2: live
  burst {port 0x71}, read_byte      ; 3: live
  burst {port 0x80}, write_byte     ; 4: posted
  burst {port 0x3F8}, write_byte    ; 5: posted
  burst {port 0x3FD}, read_byte     ; 6: mirrored
  burst {port 0x608}, read_long     ; 7: clocked
  gaps 10, 100, nothing             ; 8: what a gap test costs itself
  gaps 10, 100, keyboard_status     ; 9
  gaps 100, 50, keyboard_status     ; 10
  gaps 1000, 20, keyboard_status    ; 11
  call words                        ; 12: 256 words at once
  dec bp
  jnz all

  mov si, RESULTS
  mov dx, 0x402
.next:
  lodsd
  mov ecx, 8
.digit:
  rol eax, 4
  push ax
  and al, 15
  cmp al, 10
  jb .number
  add al, 'A' - '0' - 10
.number:
  add al, '0'
  out dx, al
  pop ax
  dec ecx
  jnz .digit
  mov al, 10
  out dx, al
  cmp si, di
  jne .next
  mov al, 16
  out 0xF4, al
  hlt

; Reads the drive's identity 20 times; only the string reads count.
words:
  xor esi, esi
  mov ebx, 20
.command:
  mov dx, 0x1F7
  mov al, 0xEC
  out dx, al
.busy:
  in al, dx
  and al, 0x88
  cmp al, 8
  jne .busy
  push ebx
  push di
  rdtsc
  mov ebx, eax
  mov di, SECTOR
  mov dx, 0x1F0
  mov ecx, 256
  rep insw
  rdtsc
  sub eax, ebx
  add esi, eax
  pop di
  pop ebx
  dec ebx
  jnz .command
  mov [di], esi
  add di, 4
  ret

  times 0xFFF0 - ($ - $$) db 0xF4
  jmp 0xF000:start
  times 0x10000 - ($ - $$) db 0xF4
