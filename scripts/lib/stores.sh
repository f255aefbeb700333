# shellcheck shell=bash
# A private PostgreSQL and Redis, for scripts/test and scripts/cluster to source.
#
# Whatever is started here listens on loopback only, keeps its files in one temporary folder, and
# is stopped when the script ends, however it ends.

# Server programs are often outside of an ordinary user's PATH; cargo is outside of many a CI job's.
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin:${CARGO_HOME:-${HOME:-}/.cargo}/bin"

# The caller's own client settings would lead these scripts, and what they start, to other servers.
unset PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGPASSFILE PGDATABASE PGSERVICE PGSERVICEFILE \
    PGOPTIONS PGSSLMODE PGDATA PGTZ PGCLIENTENCODING REDISCLI_AUTH

die() {
    printf '%s: %s\n' "${0##*/}" "$*" >&2
    exit 1
}

# --- Programs ------------------------------------------------------------------------------------

# need_programs NAME...: makes sure of `postgres` (with its companions; sets POSTGRES_BIN) and of
# any other program; installs what is missing from the distribution.
need_programs() {
    local missing
    missing=$(missing_programs "$@")
    if [[ -n $missing ]]; then
        # shellcheck disable=SC2086 # a list of words
        install_programs $missing
        missing=$(missing_programs "$@")
        missing=${missing/postgres/PostgreSQL 15 or later with its client programs,}
        if [[ -n $missing ]]; then die "please install: ${missing%,}"; fi
    fi
    find_postgres || true
}

missing_programs() {
    local program missing=''
    for program in "$@"; do
        case $program in
        postgres) find_postgres ;;
        redis-server) command -v redis-server && command -v redis-cli ;;
        *) command -v "$program" ;;
        esac >/dev/null || missing+=" $program"
    done
    printf '%s' "${missing# }"
}

# Sets POSTGRES_BIN to the folder of the newest PostgreSQL that is complete and at least version 15.
find_postgres() {
    local place program version newest=14
    POSTGRES_BIN=
    # What PATH holds may be a link to just one program of a complete folder.
    for place in "$(dirname "$(readlink -f "$(command -v postgres || echo /none/postgres)")")" \
        /usr/lib/postgresql/*/bin /usr/pgsql-*/bin /usr/libexec/postgresql* /usr/local/pgsql/bin \
        {/opt/homebrew,/usr/local,/home/linuxbrew/.linuxbrew}/opt/postgresql*/bin; do
        for program in postgres initdb pg_isready createdb psql pg_dump pg_restore; do
            [[ -x $place/$program ]] || continue 2
        done
        version=$("$place/postgres" --version | sed 's/[^0-9]*\([0-9]*\).*/\1/')
        if ((version > newest)); then
            newest=$version
            POSTGRES_BIN=$place
        fi
    done
    [[ -n $POSTGRES_BIN ]]
}

install_programs() {
    local output
    printf '%s: installing %s from the distribution\n' "${0##*/}" "$*" >&2
    output=$(install_packages "$@" 2>&1) || tail -n 5 <<<"$output" >&2
}

install_packages() {
    local sudo='' packages=" $* "
    if [[ $(id -u) -ne 0 ]]; then sudo='sudo -n'; fi
    # shellcheck disable=SC2086 # lists of words
    if command -v apt-get >/dev/null; then
        $sudo sh -c "$install_with_apt" sh ${packages/ postgres / postgresql }
    elif command -v dnf >/dev/null; then
        packages=${packages/ postgres / postgresql-server postgresql-contrib }
        $sudo dnf install -y -q ${packages/ redis-server / redis }
    elif command -v apk >/dev/null; then
        packages=${packages/ postgres / postgresql postgresql-client postgresql-contrib }
        $sudo apk add -q ${packages/ redis-server / redis }
    elif command -v brew >/dev/null; then
        packages=${packages/ postgres / postgresql@17 }
        brew install -q ${packages/ redis-server / redis }
    fi
}

# Debian starts the services of a package and creates a PostgreSQL cluster, unless told otherwise;
# both are for the owner of the machine to decide.
# shellcheck disable=SC2016 # the text is for the inner shell
install_with_apt='
    policy=/usr/sbin/policy-rc.d
    settings=/etc/postgresql-common/createcluster.d/lockstep.conf
    added=
    trap "rm -f \$added" EXIT
    trap "exit 1" HUP INT TERM
    if [ ! -e $policy ]; then
        added=$policy
        printf "#!/bin/sh\nexit 101\n" >$policy
        chmod 755 $policy
    fi
    mkdir -p ${settings%/*}
    added="$added $settings"
    echo "create_main_cluster = false" >$settings

    install() {
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
            -o DPkg::Lock::Timeout=120 "$@"
    }
    install "$@" || { apt-get update -qq && install "$@"; }
'

# --- Processes -----------------------------------------------------------------------------------

# spawn PLACE LOG COMMAND...: starts COMMAND in the background, in PLACE and in a session of its
# own, and sets `pid`. The session keeps a terminal's Ctrl-C away from it, so that things stop in
# the right order, and lets `stop` reach its children. LOG `-` stands for the script's own output.
spawn() {
    local place=$1 log=$2
    shift 2
    (
        trap - INT QUIT # bash has background processes ignore these
        if [[ $log != - ]]; then exec >>"$log" 2>&1; fi
        cd "$place" || exit
        exec "${own_session[@]}" "${die_with_script[@]}" "$@"
    ) </dev/null &
    pid=$!
}

own_session=(setsid)
if ! command -v setsid >/dev/null; then # macOS
    # shellcheck disable=SC2016 # the text is for perl
    own_session=(perl -MPOSIX -e 'POSIX::setsid(); exec { $ARGV[0] } @ARGV or die "$ARGV[0]: $!\n"')
fi

# No trap sees SIGKILL. Linux can end the processes of a script that was killed that way.
die_with_script=(setpriv --pdeathsig TERM)
if ! "${die_with_script[@]}" true 2>/dev/null; then die_with_script=(env); fi

# run COMMAND...: runs COMMAND as a part of the script, with its output and its exit status. While
# a plain command runs, bash would put off a signal to the script until its end.
run_pid=
run() {
    local status=0
    spawn . - "$@"
    run_pid=$pid
    wait "$run_pid" || status=$?
    stop TERM 10 "$run_pid" # what it may have left behind
    run_pid=
    return "$status"
}

# stop SIGNAL SECONDS PID...: ends spawned processes with all of their sessions; SIGKILL is what
# they get when they are still there after SECONDS.
stop() {
    local signal=$1 limit=$((SECONDS + $2)) id
    shift 2
    for id in "$@"; do send "$signal" "$id" || true; done
    for id in "$@"; do
        while has_session "$id" && ((SECONDS < limit)); do sleep 0.05; done
        send KILL "$id" || true
        wait "$id" || true
    done
} 2>/dev/null # bash reports the signal that ended a process, with the source code that started it

# A process that was spawned a moment ago may not have its session yet.
send() {
    kill -s "$1" -- "-$2" || kill -s "$1" "$2"
}

# Whether something of a session still runs. Dead processes do not count: there are containers where
# nothing ever collects them.
has_session() {
    local stat
    send 0 "$1" || return 1
    [[ -e /proc/self/stat ]] || return 0
    for stat in /proc/[0-9]*/stat; do
        # Name in brackets, state, parent, process group.
        if read -r stat <"$stat" && [[ ${stat##*) } =~ ^[^ZX]\ [0-9]+\ $1\  ]]; then return 0; fi
    done
    return 1
}

# The scripts put their own processes here.
stop_others() { :; }

# Runs wherever a signal interrupts the script, so it sees the local variables of that function: no
# function may have a local variable with the name of a global one that is used from here.
stop_everything() {
    local status=$?
    trap '' HUP INT TERM
    set +e
    if [[ -n $run_pid ]]; then stop TERM 30 "$run_pid"; fi
    stop_others
    stop_stores
    # What a signal kept the script from taking note of.
    # shellcheck disable=SC2046 # a list of numbers
    stop KILL 5 $(jobs -pr)
    remove_folder
    exit "$status"
}

# --- Ports ---------------------------------------------------------------------------------------

# Only the server that binds a port knows whether it is free. So a port is picked at random, below
# the range that the system gives to outgoing connections, and the next one is tried when the
# server finds it taken.

pick_port() {
    port=$((20000 + RANDOM % 12768))
    while port_answers "$port"; do port=$((20000 + RANDOM % 12768)); done
}

port_answers() {
    (: <>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

# on_free_port NAME LOG START READY...: has START spawn a server on `port`, on as many ports as it
# takes, and returns as soon as READY succeeds.
on_free_port() {
    local name=$1 log=$2 start=$3
    shift 3
    for _ in {1..20}; do
        pick_port
        : >"$log"
        "$start"
        if await 60 "$pid" "$@"; then return; fi
        stop TERM 5 "$pid"
        if ! port_was_taken "$log"; then break; fi
    done
    failed_to_start "$name" "$log"
}

# await SECONDS PID COMMAND...: until COMMAND succeeds; fails when the process ends or time is up.
await() {
    local limit=$((SECONDS + $1)) id=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        if ! kill -0 "$id" 2>/dev/null || ((SECONDS >= limit)); then return 1; fi
        sleep 0.05
    done
    # Without the process it was another server that answered.
    kill -0 "$id" 2>/dev/null
}

port_was_taken() {
    grep -qi 'address already in use' "$1"
}

failed_to_start() {
    tail -n 20 "$2" >&2
    die "$1 did not start; the end of its log is above"
}

# --- Stores --------------------------------------------------------------------------------------

made_folder=
keep_folder=
postgres_pid=
redis_pid=

# Sets `folder`, which is removed at the end of the script (unless `keep_folder` is set).
make_folder() {
    made_folder=$(mktemp -d "$(cd "${TMPDIR:-/tmp}" && pwd)/lockstep.XXXXXX")
    # shellcheck disable=SC2034 # for the scripts
    folder=$made_folder
}

# start_postgres FOLDER [fast]: sets and exports POSTGRES_PORT and DATABASE_URL. `fast` is for data
# that need not survive a crash.
start_postgres() {
    local home=$1/postgres log=$1/postgres.log settings preload as_user
    settings=(-c listen_addresses=127.0.0.1 -c "unix_socket_directories=$home" -c max_connections=400)
    if [[ ${2:-} == fast ]]; then
        settings+=(-c fsync=off -c synchronous_commit=off -c full_page_writes=off)
    fi

    mkdir "$home"
    choose_postgres_user
    postgres_initdb C.UTF-8 || postgres_initdb C || failed_to_start PostgreSQL "$log"

    # PostgreSQL would not start with a library that is not installed.
    preload=(-c shared_preload_libraries=pg_stat_statements)
    if postgres_run --single -D "$home/data" "${settings[@]}" "${preload[@]}" postgres; then
        settings+=("${preload[@]}")
    fi

    # The socket is in a folder of our own, so it is our server that answers there.
    on_free_port PostgreSQL "$log" postgres_spawn postgres_client pg_isready
    POSTGRES_PORT=$port
    DATABASE_URL=postgres://lockstep@127.0.0.1:$port/lockstep
    export POSTGRES_PORT DATABASE_URL
    postgres_client createdb lockstep
}

# The functions `postgres_*` and the next one share the variables of start_postgres.

# PostgreSQL refuses to run as root. Sets as_user to the words that run a command as somebody else.
choose_postgres_user() {
    local user uid gid ids
    as_user=(env)
    if [[ $(id -u) -ne 0 ]]; then return; fi
    for user in postgres nobody; do
        # (Inside of the list these could end in a syntax error when a signal comes, with bash 5.2.)
        uid=$(id -u "$user" 2>/dev/null) || continue
        gid=$(id -g "$user")
        ids=("--reuid=$uid" "--regid=$gid" --init-groups)
        if setpriv "${ids[@]}" true; then
            as_user=(setpriv "${ids[@]}")
        elif runuser -u "$user" -- true; then
            as_user=(runuser -u "$user" --)
        elif su -s /bin/sh -c true -- "$user"; then
            # shellcheck disable=SC2016 # the text is for the inner shell
            as_user=(su -s /bin/sh -c 'exec "$0" "$@"' -- "$user")
        else
            continue
        fi 2>/dev/null
        chmod a+x "${home%/*}"
        chown "$user" "$home"
        "${as_user[@]}" test -w "$home" || die "the user '$user' cannot enter ${home%/*}; set TMPDIR"
        return
    done
    die "PostgreSQL does not run as root, and there is no user 'postgres' or 'nobody' to run it as"
}

postgres_initdb() {
    (
        cd "$home" || exit
        "${as_user[@]}" "$POSTGRES_BIN/initdb" -D "$home/data" -U lockstep -E UTF8 --locale="$1" \
            --auth=trust --no-sync
    ) >>"$log" 2>&1
}

postgres_run() {
    (cd "$home" && "${as_user[@]}" "$POSTGRES_BIN/postgres" "$@") </dev/null >>"$log" 2>&1
}

postgres_spawn() {
    spawn "$home" "$log" "${as_user[@]}" "${die_with_script[@]}" env LC_ALL=C \
        "$POSTGRES_BIN/postgres" -D "$home/data" -p "$port" "${settings[@]}"
    postgres_pid=$pid
}

postgres_client() {
    local program=$1
    shift
    "$POSTGRES_BIN/$program" -h "$home" -p "$port" -U lockstep "$@"
}

# start_redis FOLDER: sets and exports REDIS_URL. Nothing is written to disk.
start_redis() {
    local home=$1/redis
    mkdir "$home"
    on_free_port Redis "$1/redis.log" redis_spawn redis-cli -s "$home/socket" ping
    export REDIS_URL=redis://127.0.0.1:$port/
}

redis_spawn() {
    spawn "$home" "${home%/*}/redis.log" env LC_ALL=C \
        redis-server --bind 127.0.0.1 --port "$port" --unixsocket "$home/socket" \
        --save '' --appendonly no --maxmemory-policy noeviction
    redis_pid=$pid
}

stop_stores() {
    if [[ -n $redis_pid ]]; then stop TERM 10 "$redis_pid"; fi
    # SIGINT has PostgreSQL end its connections, SIGTERM would have it wait for them.
    if [[ -n $postgres_pid ]]; then stop INT 10 "$postgres_pid"; fi
    redis_pid='' postgres_pid=''
}

remove_folder() {
    # Only what mktemp made: this may be running as root.
    if [[ $made_folder != */lockstep.?????? ]]; then return; fi
    if [[ -n $keep_folder ]]; then
        printf '%s: kept %s\n' "${0##*/}" "$made_folder" >&2
    else
        rm -rf -- "$made_folder"
    fi
}

# Last, when all that the traps use is there.
trap stop_everything EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM
