cat > /usr/local/etc/push-redirect.rules <<'END'
# Loaded into the anchor "push-redirect". Once, among the translation rules of /etc/pf.conf:
#     rdr-anchor "push-redirect"
# Leave lo0 out of "set skip", or this host itself does not reach the push host.
# Filter rules see the packet with its new port.
# push-redirect: port 80 of the push host to 6660
rdr inet proto tcp from any to 198.51.100.81 port 80 -> 198.51.100.81 port 6660
# push-redirect: port 443 of the push host to 6643
rdr inet proto tcp from any to 198.51.100.81 port 443 -> 198.51.100.81 port 6643
# push-redirect: port 80 of the push host to 6660
rdr inet6 proto tcp from any to 2001:db8::81 port 80 -> 2001:db8::81 port 6660
# push-redirect: port 443 of the push host to 6643
rdr inet6 proto tcp from any to 2001:db8::81 port 443 -> 2001:db8::81 port 6643
END
cat > /usr/local/etc/rc.d/push_redirect <<'END'
#!/bin/sh

# PROVIDE: push_redirect
# REQUIRE: pf
# KEYWORD: nojailvnet

. /etc/rc.subr

name=push_redirect
desc="Port redirect to the push server, by pf"
rcvar=push_redirect_enable
extra_commands=status
start_cmd=redirect_start
stop_cmd=redirect_stop
status_cmd=redirect_status

redirect_start()
{
    pfctl -q -a push-redirect -f "$push_redirect_rules"
}

redirect_stop()
{
    pfctl -q -a push-redirect -F nat
}

redirect_status()
{
    pfctl -q -a push-redirect -s nat
}

load_rc_config $name
: ${push_redirect_enable:=NO}
: ${push_redirect_rules:=/usr/local/etc/push-redirect.rules}

run_rc_command "$1"
END
chmod 555 /usr/local/etc/rc.d/push_redirect
sysrc push_redirect_enable=YES
service push_redirect start
