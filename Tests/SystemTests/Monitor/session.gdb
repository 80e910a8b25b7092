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
