# What gdb does with a kernel of Debian's that boots; SOCKET is put in by the test.
set pagination off
set confirm off
set remotetimeout 30
set architecture i386:x86-64
target remote SOCKET
info threads
thread 1
# Some place in the kernel that it comes to again: where it is, or was called from.
hbreak *$rip
set var $place = $rip
stepi
continue
printf "hit: %d\n", $rip == $place
delete
printf "paging: %d\n", ($cr0 >> 31) == 1 && ($efer & 0x500) == 0x500
awatch -l *(unsigned long *)($rsp - 16)
continue
delete
rwatch -l *(unsigned long *)$rsp
continue
delete
stepi
stepi
info registers rip
monitor info registers
set scheduler-locking step
thread 2
set var $other = $rip
thread 1
stepi
stepi
thread 2
printf "other vCPU stood: %d\n", $rip == $other
thread 1
set scheduler-locking off
# The kernel's text is mapped from 16 MiB on, without a random offset.
set var $text = *(unsigned long *)0xffffffff81000000
maintenance packet Qqemu.PhyMemMode:1
printf "same by physical address: %d\n", *(unsigned long *)0x1000000 == $text
maintenance packet Qqemu.PhyMemMode:0
detach
quit
