# What gdb does with Guests/debug.c; FILE and SOCKET are put in by the test.
set pagination off
set confirm off
set remotetimeout 30
file FILE
target remote SOCKET
info threads
hbreak innermost
continue
backtrace
stepi
stepi
info registers rip
monitor info registers
delete
break middle
continue
delete
watch watched
continue
printf "remainder %lu\n", counter % 64
delete
rwatch counter
continue
delete
awatch counter
continue
delete
set var $xmm1.v2_int64[0] = 0x9900aabbccddeeff
set var $xmm1.v2_int64[1] = 0x1122334455667788
printf "xmm1 = "
output/x $xmm1.uint128
echo \n
set var $st0 = 2.5
printf "st0 = %g\n", $st0
set var $gs_base = 0xffff800000001000
printf "gs_base = 0x%lx\n", $gs_base
set var $here = *(unsigned long *)&innermost
maintenance packet Qqemu.PhyMemMode:1
printf "memory by physical address: %d\n", *(unsigned long *)&innermost == $here
maintenance packet Qqemu.PhyMemMode:0
set var watched = 1000000
set var $rax = 0x123456789a
print/x $rax
set var $count = counter
detach
shell sleep 1
target remote SOCKET
printf "went on: %d\n", counter > $count + 1000
printf "watched grew from a million: %d\n", watched > 1000000 && watched < 100000000
detach
quit
