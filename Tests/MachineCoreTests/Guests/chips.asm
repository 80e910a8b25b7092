; SPDX-License-Identifier: Apache-2.0
; The registers of the interrupt hardware, written and read back; and interrupts by each way.
%include "flat.inc"
%define APIC 0xFEE00000
%define IOREGSEL 0xFEC00000
%define IOWIN 0xFEC00010
%macro apic_write 2
  mov dword [APIC + %1], %2
%endmacro
%macro apic 1            ; register %1 to the next result
  mov eax, [APIC + %1]
  note
%endmacro
%macro route 3           ; pin %1: low word %2, high word %3
  mov dword [IOREGSEL], 0x11 + 2 * %1
  mov dword [IOWIN], %3
  mov dword [IOREGSEL], 0x10 + 2 * %1
  mov dword [IOWIN], %2
%endmacro
%macro entry 1           ; pin %1's entry to the next two results
  mov dword [IOREGSEL], 0x10 + 2 * %1
  mov eax, [IOWIN]
  note
  mov dword [IOREGSEL], 0x11 + 2 * %1
  mov eax, [IOWIN]
  note
%endmacro
%macro registers 1       ; IRR and ISR of the 8259A at %1
  outb %1, 0x0A
  inb %1
  outb %1, 0x0B
  inb %1
%endmacro
%macro tick 0            ; line 0 rises once
  outb 0x43, 0x30
  outb 0x40, 0x20
  outb 0x40, 0
  mov ecx, 3000
%%wait:
  outb 0x43, 0xE2
  in al, 0x40
  test al, 0x80
  jnz %%done
  loop %%wait
%%done:
  ; KVM raises the line in a thread of the host's, which may have to wait for a core.
  mov ecx, 20000
%%raised:
  outb 0x20, 0x0A
  in al, 0x20
  test al, 1
  jnz %%latched
  loop %%raised
%%latched:
  mov ecx, 4000
%%later:
  in al, 0x61
  loop %%later
%endmacro
%macro take 1            ; lets %1 interrupts come
%%next:
  cmp dword [0xF00], %1
  jae %%done
  sti
  hlt
  cli
  jmp %%next
%%done:
  mov dword [0xF00], 0
%endmacro
main:
  mov dword [0xF00], 0
  gate 0x20, interrupt
  gate 0x28, interrupt
  gate 0x40, apic_interrupt_40
  gate 0x41, apic_interrupt_41
  gate 0x52, apic_interrupt_52
  ; The 8259A: initialisation, masks, ELCR.
  outb 0x20, 0x11
  outb 0x21, 0x20
  outb 0x21, 0x04
  outb 0x21, 0x01
  outb 0xA0, 0x11
  outb 0xA1, 0x28
  outb 0xA1, 0x02
  outb 0xA1, 0x01
  inb 0x21
  inb 0xA1
  outb 0x21, 0xFF
  outb 0xA1, 0xA5
  inb 0x21
  inb 0xA1
  outb 0x4D0, 0xFF
  outb 0x4D1, 0xFF
  inb 0x4D0
  inb 0x4D1
  outb 0x4D0, 0
  outb 0x4D1, 0
  inb 0x4D0
  inb 0x4D1
  registers 0x20
  registers 0xA0
  ; A request behind the mask, polled, rotated and ended.
  tick
  registers 0x20
  outb 0x21, 0xFE
  registers 0x20
  ; KVM leaves a polled input out of service: end it before anything looks.
  outb 0x20, 0x0C
  inb 0x20
  outb 0x20, 0xA0
  registers 0x20
  outb 0x20, 0x0C
  inb 0x20
  ; By the table, with a specific end.
  tick
  take 1
  registers 0x20
  outb 0x20, 0x60
  registers 0x20
  ; The special mask mode.
  outb 0x20, 0x68
  outb 0x21, 0xFF
  registers 0x20
  outb 0x20, 0x48
  ; Automatic end.
  outb 0x20, 0x11
  outb 0x21, 0x20
  outb 0x21, 0x04
  outb 0x21, 0x03
  outb 0x21, 0xFE
  tick
  take 1
  registers 0x20
  outb 0x21, 0xFF

  ; The 8254: control words by read-back; and what was latched.
%assign word 0xB0
%rep 6
  outb 0x43, word
  outb 0x43, 0xE8
  xor eax, eax
  in al, 0x42
  and al, 0x3F             ; KVM has no null count bit
  note
%assign word word + 2
%endrep
  outb 0x43, 0xB5
  outb 0x42, 0x99
  outb 0x42, 0x99
  outb 0x43, 0xE8
  xor eax, eax
  in al, 0x42
  and al, 0x3F
  note
  outb 0x43, 0x94
  outb 0x42, 0x80
  outb 0x43, 0xE8
  xor eax, eax
  in al, 0x42
  and al, 0x3F
  note
  outb 0x61, 0x03
  xor eax, eax
  in al, 0x61
  and al, 3
  note
  outb 0x61, 0
  xor eax, eax
  in al, 0x61
  and al, 3
  note

  ; The local APIC: every register that can be written.
  apic 0x20
  apic_write 0xF0, 0x1FF
  apic 0xF0
  apic_write 0x80, 0x5A
  apic 0x80
  apic 0xA0
  apic_write 0x80, 0
  apic_write 0xD0, 0x12345678
  apic 0xD0
  apic_write 0xE0, 0
  apic 0xE0
  apic_write 0xE0, 0xFFFFFFFF
  apic 0xE0
  apic_write 0x330, 0x10044
  apic 0x330
  apic_write 0x340, 0x10400
  apic 0x340
  apic_write 0x350, 0x1A7FF
  apic 0x350
  apic_write 0x360, 0x10400
  apic 0x360
  apic_write 0x370, 0x100FE
  apic 0x370
  apic_write 0x320, 0x300FF
  apic 0x320
%assign code 0
%rep 16
  apic_write 0x3E0, code
  apic 0x3E0
%assign code code + 1
%endrep
  ; Self-IPIs: IRR, their order, TPR and ISR.
  apic_write 0x300, 0x44040
  apic_write 0x300, 0x44041
  apic_write 0x300, 0x44052
  apic 0x300
  apic 0x220
  apic_write 0x80, 0x50
  apic 0x220
  apic_write 0x80, 0x40
  take 1
  apic 0x220
  apic_write 0x80, 0
  take 2
  apic 0x220
  apic 0x120
  ; Logical and physical destinations.
  apic_write 0xD0, 0x02000000
  apic_write 0x310, 0x01000000
  apic_write 0x300, 0x4840
  apic 0x220
  apic_write 0x310, 0x02000000
  apic_write 0x300, 0x4840
  apic 0x220
  take 1
  apic_write 0x310, 0
  apic_write 0x300, 0x4041
  take 1
  ; The timer, masked and open.
  apic_write 0x3E0, 0xB
  apic_write 0x320, 0x10052
  apic_write 0x380, 100
  mov ecx, 400
.masked:
  in al, 0x61
  loop .masked
  apic 0x390
  apic 0x220
  apic_write 0x320, 0x52
  apic_write 0x380, 100
  mov ecx, 400
.open:
  in al, 0x61
  loop .open
  apic 0x380
  apic 0x390
  apic 0x220
  take 1
  ; The deadline mode's count is zero.
  apic_write 0x320, 0x12052
  ; The I/O APIC's entries, and line 0 by pin 2.
  mov dword [IOREGSEL], 0
  mov dword [IOWIN], 0x0F000000
  mov eax, [IOWIN]
  note
  mov dword [IOREGSEL], 2
  mov eax, [IOWIN]
  note
  route 5, 0x1AFFF, 0x5A000000
  entry 5
  route 5, 0x10000, 0
  entry 5
  route 2, 0x10040, 0
  tick
  apic 0x220
  route 2, 0x40, 0
  apic 0x220
  tick
  apic 0x220
  take 1
  apic 0x220
  entry 2
  ; ExtINT by the I/O APIC and by a command does nothing.
  route 2, 0x740, 0
  tick
  apic 0x220
  apic 0x210
  ; Disabled by software: the local vectors are masked.
  apic_write 0xF0, 0xFF
  apic 0x320
  apic 0x350
  apic_write 0x350, 0x700
  apic 0x350
  mov dword [0xFF8], 0x600D600D
.stop:
  hlt
  jmp .stop

interrupt:
  mov eax, 0x11111111
  note
  inc dword [0xF00]
  iretd
%macro apic_handler 1
apic_interrupt_%1:
  push eax
  mov eax, 0x%1
  note
  mov dword [APIC + 0xB0], 0
  pop eax
  inc dword [0xF00]
  iretd
%endmacro
  apic_handler 40
  apic_handler 41
  apic_handler 52
bits 16
reset_vector start
