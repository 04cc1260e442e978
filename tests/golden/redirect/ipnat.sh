cat > /usr/local/etc/push-redirect.rules <<'END'
# push-redirect: port 80 of the push host to 6660, from other hosts
rdr em0 198.51.100.81/32 port 80 -> 198.51.100.81 port 6660 tcp
# push-redirect: port 80 of the push host to 6660, from this host
rdr lo0 198.51.100.81/32 port 80 -> 198.51.100.81 port 6660 tcp
# push-redirect: port 443 of the push host to 6643, from other hosts
rdr em0 198.51.100.81/32 port 443 -> 198.51.100.81 port 6643 tcp
# push-redirect: port 443 of the push host to 6643, from this host
rdr lo0 198.51.100.81/32 port 443 -> 198.51.100.81 port 6643 tcp
# push-redirect: port 80 of the push host to 6660, from other hosts
rdr em0 2001:db8::81/128 port 80 -> 2001:db8::81 port 6660 tcp
# push-redirect: port 80 of the push host to 6660, from this host
rdr lo0 2001:db8::81/128 port 80 -> 2001:db8::81 port 6660 tcp
# push-redirect: port 443 of the push host to 6643, from other hosts
rdr em0 2001:db8::81/128 port 443 -> 2001:db8::81 port 6643 tcp
# push-redirect: port 443 of the push host to 6643, from this host
rdr lo0 2001:db8::81/128 port 443 -> 2001:db8::81 port 6643 tcp
END
cat > /usr/local/etc/rc.d/push_redirect <<'END'
#!/bin/sh

# PROVIDE: push_redirect
# REQUIRE: ipnat
# KEYWORD: nojailvnet

. /etc/rc.subr

name=push_redirect
desc="Port redirect to the push server, by ipnat"
rcvar=push_redirect_enable
extra_commands=status
start_cmd=redirect_start
stop_cmd=redirect_stop
status_cmd=redirect_status

redirect_start()
{
    ipnat -r -f "$push_redirect_rules" 2>/dev/null
    ipnat -f "$push_redirect_rules"
}

redirect_stop()
{
    ipnat -r -f "$push_redirect_rules"
}

redirect_status()
{
    ipnat -l
}

load_rc_config $name
: ${push_redirect_enable:=NO}
: ${push_redirect_rules:=/usr/local/etc/push-redirect.rules}

run_rc_command "$1"
END
chmod 555 /usr/local/etc/rc.d/push_redirect
sysrc push_redirect_enable=YES
service push_redirect start
