nft -f - <<'END'
table inet push_redirect
delete table inet push_redirect
table inet push_redirect {
    chain redirects {
        ip daddr 198.51.100.81 tcp dport 80 counter dnat ip to 198.51.100.81:6660 comment "push-redirect: port 80 of the push host to 6660"
        ip daddr 198.51.100.81 tcp dport 443 counter dnat ip to 198.51.100.81:6643 comment "push-redirect: port 443 of the push host to 6643"
        ip6 daddr 2001:db8::81 tcp dport 80 counter dnat ip6 to [2001:db8::81]:6660 comment "push-redirect: port 80 of the push host to 6660"
        ip6 daddr 2001:db8::81 tcp dport 443 counter dnat ip6 to [2001:db8::81]:6643 comment "push-redirect: port 443 of the push host to 6643"
    }
    chain prerouting {
        type nat hook prerouting priority -100; policy accept;
        jump redirects comment "push-redirect: from other hosts"
    }
    chain output {
        type nat hook output priority -100; policy accept;
        jump redirects comment "push-redirect: from this host"
    }
}
END
