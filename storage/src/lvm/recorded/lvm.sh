#!/bin/sh
# In LVM's place: a group that is files. Each logical volume is a directory of its fields; every change
# is noted, and a file `on-COMMAND` is done instead of it.
cd "${0%/*}" || exit 9
command=$1
shift

of() {
    for lv in lv/*; do
        [ "$(cat "$lv/name")" = "${1#vg/}" ] && echo "$lv"
    done
}

# Changes of this program's, and of others'.
seqno() {
    cat calls changes | wc -l
}

if [ "$command" = fullreport ]; then
    echo >>reports
    lvs= segs=
    for lv in lv/*; do
        [ -d "$lv" ] || continue
        field() { cat "$lv/$1" 2>/dev/null || echo "$2"; }
        lvs="$lvs${lvs:+,}{\"lv_name\":\"$(field name)\",\"lv_uuid\":\"${lv#lv/}\",\"lv_size\":\"4194304\",
            \"lv_tags\":\"$(field tags | paste -sd,)\",\"origin\":\"$(field origin)\",
            \"lv_device_open\":\"$(field open 0)\",\"lv_kernel_major\":\"$(field major -1)\",\"lv_kernel_minor\":\"$(field minor -1)\",
            \"lv_autoactivation\":\"$(field autoactivation 1)\"}"
        segs="$segs${segs:+,}{\"lv_uuid\":\"${lv#lv/}\",\"seg_start\":\"0\",\"segtype\":\"linear\",
            \"seg_pe_ranges\":\"$PWD/pv:$(field at)-$(field at)\"}"
    done
    echo "{\"report\":[{\"vg\":[{\"vg_seqno\":\"$(seqno)\",\"vg_free\":\"$(cat free)\",\"vg_size\":\"1073741824\",
        \"vg_extent_size\":\"4194304\",\"vg_missing_pv_count\":\"0\"}],
        \"pv\":[{\"pv_name\":\"$PWD/pv\",\"pe_start\":\"0\"}],\"lv\":[$lvs],\"seg\":[$segs]}]}"
    exit
fi

echo "$command $*" >>calls
[ ! -e "on-$command" ] || . "./on-$command"
for last; do :; done
case $command in
lvrename)
    for from; do [ "$from" = "$last" ] || before=$from; done
    echo "$last" >"$(of "$before")/name"
    ;;
lvchange)
    lv=$(of "$last")
    while [ $# -gt 1 ]; do
        case $1 in
        --addtag) echo "$2" >>"$lv/tags" ;;
        --setautoactivation) [ "$2" = y ] && echo 1 >"$lv/autoactivation" || echo 0 >"$lv/autoactivation" ;;
        --deltag) grep -vxF "$2" "$lv/tags" >tags || :; mv tags "$lv/tags" ;;
        esac
        shift
    done
    ;;
lvremove)
    # This call is noted already.
    wanted=${*##*vg_seqno=}
    [ "$wanted" = "$*" ] || [ "${wanted%%&*}" = $(($(seqno) - 1)) ] || exit 0
    while [ "$1" != -- ]; do shift; done
    shift
    for name; do rm -r "$(of "$name")" && echo "  Logical volume \"${name#*/}\" successfully removed."; done
    ;;
esac
