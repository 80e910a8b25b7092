# What gdb does with Guests/twocpus.c on two vCPUs; FILE and SOCKET are put in by the test.
set pagination off
set confirm off
set remotetimeout 30
file FILE
target remote SOCKET
info threads
hbreak first_inner
continue
backtrace
printf "stopped in thread %d\n", $_thread
info registers rip
monitor info registers
set var $place = $rip
stepi
printf "stepped: %d\n", $rip != $place
printf "symbol: "
info symbol $rip
delete
hbreak second_inner
continue
backtrace
printf "stopped in thread %d\n", $_thread
info registers rip
monitor info registers
finish
delete
set scheduler-locking step
set var $other = first_count
stepi
stepi
printf "the other stood: %d\n", first_count == $other
set scheduler-locking off
# The breakpoint is for a KVM that does not see watchpoints.
watch first_watched
hbreak first_outer
ignore $bpnum 300
continue
printf "remainder %lu\n", first_count % 64
delete
thread 2
set var $cr2 = 0x12345678
printf "cr2 = 0x%lx\n", $cr2
set var $old = $cr4
set var $cr4 = $cr4 | 4
printf "cr4: %d\n", $cr4 == ($old | 4)
set var $cr4 = $old
set var $es = 0
printf "es = %d\n", $es
set var $fs = 0x2b
printf "fs = 0x%x\n", $fs
monitor info registers
set var $es = 0x10
python
for text in ("$cr0 = 0x80000000", "$cs = 0x28", "$es = 0x1000", "$cr8 = 16", "$efer = 0"):
    try:
        gdb.execute("set var " + text)
        print("taken: " + text)
    except gdb.error as error:
        print("refused: " + text)
end
thread 1
set var $first = first_count
set var $second = second_count
detach
shell sleep 1
target remote SOCKET
printf "both went on: %d\n", first_count > $first + 1000 && second_count > $second + 1000
detach
quit
