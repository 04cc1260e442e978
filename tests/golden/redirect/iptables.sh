iptables-restore --noflush --wait=10 <<'END'
*nat
:PUSH-REDIRECT - [0:0]
-A PUSH-REDIRECT -d 198.51.100.81/32 -p tcp -m tcp --dport 80 -m comment --comment "push-redirect: port 80 of the push host to 6660" -j DNAT --to-destination 198.51.100.81:6660
-A PUSH-REDIRECT -d 198.51.100.81/32 -p tcp -m tcp --dport 443 -m comment --comment "push-redirect: port 443 of the push host to 6643" -j DNAT --to-destination 198.51.100.81:6643
-I PREROUTING 1 -m comment --comment "push-redirect: from other hosts" -j PUSH-REDIRECT
-I OUTPUT 1 -m comment --comment "push-redirect: from this host" -j PUSH-REDIRECT
COMMIT
END
ip6tables-restore --noflush --wait=10 <<'END'
*nat
:PUSH-REDIRECT - [0:0]
-A PUSH-REDIRECT -d 2001:db8::81/128 -p tcp -m tcp --dport 80 -m comment --comment "push-redirect: port 80 of the push host to 6660" -j DNAT --to-destination [2001:db8::81]:6660
-A PUSH-REDIRECT -d 2001:db8::81/128 -p tcp -m tcp --dport 443 -m comment --comment "push-redirect: port 443 of the push host to 6643" -j DNAT --to-destination [2001:db8::81]:6643
-I PREROUTING 1 -m comment --comment "push-redirect: from other hosts" -j PUSH-REDIRECT
-I OUTPUT 1 -m comment --comment "push-redirect: from this host" -j PUSH-REDIRECT
COMMIT
END
