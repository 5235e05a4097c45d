# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_rless_global_optspecs
    string join \n v/version log-level= D/debug h/help
end

function __fish_rless_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_rless_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_rless_using_subcommand
    set -l cmd (__fish_rless_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c rless -n "__fish_rless_needs_command" -l log-level -d 'Tell errors only (error, fatal, panic) or warnings, too (warn, info, debug, trace)' -r -f -a "trace\t''
debug\t''
info\t''
warn\t''
error\t''
fatal\t''
panic\t''"
complete -c rless -n "__fish_rless_needs_command" -s v -l version -d 'Print the version'
complete -c rless -n "__fish_rless_needs_command" -s D -l debug -d 'For docker\'s scripts: there is nothing more to tell'
complete -c rless -n "__fish_rless_needs_command" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_needs_command" -f -a "mount-cow" -d 'Mount an image\'s index or directories, with changes going to an upper, and serve it'
complete -c rless -n "__fish_rless_needs_command" -f -a "image" -d 'Manage images'
complete -c rless -n "__fish_rless_needs_command" -f -a "images" -d 'List images'
complete -c rless -n "__fish_rless_needs_command" -f -a "pull" -d 'Bring images from a registry, a layout or an archive into the store'
complete -c rless -n "__fish_rless_needs_command" -f -a "rmi" -d 'Remove images, or names of images'
complete -c rless -n "__fish_rless_needs_command" -f -a "run" -d 'Run a command in a new container'
complete -c rless -n "__fish_rless_needs_command" -f -a "ps" -d 'List containers'
complete -c rless -n "__fish_rless_needs_command" -f -a "rm" -d 'Remove containers'
complete -c rless -n "__fish_rless_needs_command" -f -a "snapshot" -d 'Keep the state that a container\'s files have now, to restore it later'
complete -c rless -n "__fish_rless_needs_command" -f -a "restore" -d 'Put a container\'s files back into the state of a snapshot'
complete -c rless -n "__fish_rless_needs_command" -f -a "stop" -d 'Stop containers'
complete -c rless -n "__fish_rless_needs_command" -f -a "start" -d 'Start containers'
complete -c rless -n "__fish_rless_needs_command" -f -a "create" -d 'Make a container without starting it'
complete -c rless -n "__fish_rless_needs_command" -f -a "kill" -d 'Send a signal to the first process of containers'
complete -c rless -n "__fish_rless_needs_command" -f -a "pause" -d 'Freeze all processes of containers'
complete -c rless -n "__fish_rless_needs_command" -f -a "unpause" -d 'Let the processes of paused containers go on'
complete -c rless -n "__fish_rless_needs_command" -f -a "rename" -d 'Give a container another name'
complete -c rless -n "__fish_rless_needs_command" -f -a "restart" -d 'Stop containers, if they run, and start them'
complete -c rless -n "__fish_rless_needs_command" -f -a "wait" -d 'Wait until containers have ended, and print their exit codes'
complete -c rless -n "__fish_rless_needs_command" -f -a "update" -d 'Change the limits, the restart policy and the health check of a container'
complete -c rless -n "__fish_rless_needs_command" -f -a "container" -d 'Manage containers'
complete -c rless -n "__fish_rless_needs_command" -f -a "volume" -d 'Manage volumes'
complete -c rless -n "__fish_rless_needs_command" -f -a "commit" -d 'Make an image of a container: its own image, and over it what the container changed'
complete -c rless -n "__fish_rless_needs_command" -f -a "cp" -d 'Copy files between a container and the host, between containers, or from and to a tar stream'
complete -c rless -n "__fish_rless_needs_command" -f -a "diff" -d 'Show what a container changed in its file system, or what an image\'s uppermost layer did'
complete -c rless -n "__fish_rless_needs_command" -f -a "events" -d 'Show what happens to containers, images and volumes'
complete -c rless -n "__fish_rless_needs_command" -f -a "exec" -d 'Run a command in a running container'
complete -c rless -n "__fish_rless_needs_command" -f -a "export" -d 'Write a container\'s files as a tar archive'
complete -c rless -n "__fish_rless_needs_command" -f -a "healthcheck" -d 'Manage health checks of containers'
complete -c rless -n "__fish_rless_needs_command" -f -a "logs" -d 'Show what containers wrote'
complete -c rless -n "__fish_rless_needs_command" -f -a "attach" -d 'Attach to a running container'
complete -c rless -n "__fish_rless_needs_command" -f -a "inspect" -d 'Show everything that is known of containers, images and volumes'
complete -c rless -n "__fish_rless_needs_command" -f -a "port" -d 'Show a container\'s published ports'
complete -c rless -n "__fish_rless_needs_command" -f -a "stats" -d 'Show what containers use: CPU, memory, network, block I/O, processes'
complete -c rless -n "__fish_rless_needs_command" -f -a "info" -d 'Show what this host allows, why, and how to get more'
complete -c rless -n "__fish_rless_needs_command" -f -a "top" -d 'Show the processes of a container'
complete -c rless -n "__fish_rless_needs_command" -f -a "version" -d 'Show the version'
complete -c rless -n "__fish_rless_needs_command" -f -a "generate" -d 'Write man pages or shell completions into a directory'
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -l index -d 'Image index to mount' -r -F
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -l packs -d 'Directory of the packs that the index names' -r -F
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -l lower -d 'Directory to mount, which may change meanwhile' -r -F
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -l upper -d 'Directory for the changes (made if missing); without it the mount is read-only' -r -F
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -l size -d 'Bytes that the upper may take' -r
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -l squash -d 'Show every owner as this one; true owners are in the attribute security.rless.owner' -r
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -l stats -d 'Write the number of requests of each kind here at the end (or RLESS_FUSE_STATS)' -r -F
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -s o -l options -d 'As overlayfs and fuse-overlayfs take: lowerdir=A:B:…,upperdir=,workdir=, ro, nosuid, nodev, noexec, noatime, squash_to_root …; also image=FILE,packs=DIR, size=BYTES' -r
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -s f -l foreground -d 'Stay in the foreground with -o, too'
complete -c rless -n "__fish_rless_using_subcommand mount-cow" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand image; and not __fish_seen_subcommand_from exists inspect ls list pull rm" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand image; and not __fish_seen_subcommand_from exists inspect ls list pull rm" -f -a "exists" -d 'Tell by the exit code whether there is such an image: 0, or 1'
complete -c rless -n "__fish_rless_using_subcommand image; and not __fish_seen_subcommand_from exists inspect ls list pull rm" -f -a "inspect" -d 'Show images as JSON'
complete -c rless -n "__fish_rless_using_subcommand image; and not __fish_seen_subcommand_from exists inspect ls list pull rm" -f -a "ls" -d 'List images'
complete -c rless -n "__fish_rless_using_subcommand image; and not __fish_seen_subcommand_from exists inspect ls list pull rm" -f -a "list" -d 'List images'
complete -c rless -n "__fish_rless_using_subcommand image; and not __fish_seen_subcommand_from exists inspect ls list pull rm" -f -a "pull" -d 'Bring images into the store'
complete -c rless -n "__fish_rless_using_subcommand image; and not __fish_seen_subcommand_from exists inspect ls list pull rm" -f -a "rm" -d 'Remove images'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from exists" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from inspect" -s f -l format -d 'Render a Go template for each instead of JSON' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from inspect" -s l -l latest -d 'Show the last one that was made'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from inspect" -s s -l size -d 'Add what containers take on disk'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -s f -l filter -d 'Only images that match: reference=PATTERN, dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, id=ID' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -l format -d 'Print JSON (`json`) or render a Go template' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -l sort -d 'Sort by created, id, repository, size or tag' -r -f -a "created\t''
id\t''
repository\t''
size\t''
tag\t''"
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -s a -l all -d 'Show all images (there are no hidden ones)'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -l digests -d 'Show digests'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -s n -l noheading -l noheadings -d 'Do not print the headings'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -l no-trunc -d 'Do not shorten ids'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Print ids only'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -s f -l filter -d 'Only images that match: reference=PATTERN, dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, id=ID' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -l format -d 'Print JSON (`json`) or render a Go template' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -l sort -d 'Sort by created, id, repository, size or tag' -r -f -a "created\t''
id\t''
repository\t''
size\t''
tag\t''"
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -s a -l all -d 'Show all images (there are no hidden ones)'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -l digests -d 'Show digests'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -s n -l noheading -l noheadings -d 'Do not print the headings'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -l no-trunc -d 'Do not shorten ids'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Print ids only'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -l platform -d 'Choose the image for OS/ARCH[/VARIANT] instead of this machine\'s' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -l arch -d 'Choose the image for this architecture' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -l os -d 'Choose the image for this operating system' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -l variant -d 'Choose the image for this variant of the architecture' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -l tls-verify -d 'Require https and a valid certificate (--tls-verify=false: do not)' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -l authfile -d 'Read credentials from this file only' -r -F
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -l creds -d 'Log in with these credentials' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -l policy -d 'When to ask the registry: always, missing, never, newer' -r
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -s q -l quiet -d 'Print the image\'s id only'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from pull" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from rm" -s a -l all -d 'Remove every image'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from rm" -s f -l force -d 'Remove all names of an image given by id, and the containers that use it'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from rm" -s i -l ignore -d 'An image that does not exist is no error'
complete -c rless -n "__fish_rless_using_subcommand image; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand images" -s f -l filter -d 'Only images that match: reference=PATTERN, dangling=BOOL, label=KEY[=VALUE], before=IMAGE, since=IMAGE, id=ID' -r
complete -c rless -n "__fish_rless_using_subcommand images" -l format -d 'Print JSON (`json`) or render a Go template' -r
complete -c rless -n "__fish_rless_using_subcommand images" -l sort -d 'Sort by created, id, repository, size or tag' -r -f -a "created\t''
id\t''
repository\t''
size\t''
tag\t''"
complete -c rless -n "__fish_rless_using_subcommand images" -s a -l all -d 'Show all images (there are no hidden ones)'
complete -c rless -n "__fish_rless_using_subcommand images" -l digests -d 'Show digests'
complete -c rless -n "__fish_rless_using_subcommand images" -s n -l noheading -l noheadings -d 'Do not print the headings'
complete -c rless -n "__fish_rless_using_subcommand images" -l no-trunc -d 'Do not shorten ids'
complete -c rless -n "__fish_rless_using_subcommand images" -s q -l quiet -d 'Print ids only'
complete -c rless -n "__fish_rless_using_subcommand images" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand pull" -l platform -d 'Choose the image for OS/ARCH[/VARIANT] instead of this machine\'s' -r
complete -c rless -n "__fish_rless_using_subcommand pull" -l arch -d 'Choose the image for this architecture' -r
complete -c rless -n "__fish_rless_using_subcommand pull" -l os -d 'Choose the image for this operating system' -r
complete -c rless -n "__fish_rless_using_subcommand pull" -l variant -d 'Choose the image for this variant of the architecture' -r
complete -c rless -n "__fish_rless_using_subcommand pull" -l tls-verify -d 'Require https and a valid certificate (--tls-verify=false: do not)' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand pull" -l authfile -d 'Read credentials from this file only' -r -F
complete -c rless -n "__fish_rless_using_subcommand pull" -l creds -d 'Log in with these credentials' -r
complete -c rless -n "__fish_rless_using_subcommand pull" -l policy -d 'When to ask the registry: always, missing, never, newer' -r
complete -c rless -n "__fish_rless_using_subcommand pull" -s q -l quiet -d 'Print the image\'s id only'
complete -c rless -n "__fish_rless_using_subcommand pull" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand rmi" -s a -l all -d 'Remove every image'
complete -c rless -n "__fish_rless_using_subcommand rmi" -s f -l force -d 'Remove all names of an image given by id, and the containers that use it'
complete -c rless -n "__fish_rless_using_subcommand rmi" -s i -l ignore -d 'An image that does not exist is no error'
complete -c rless -n "__fish_rless_using_subcommand rmi" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand run" -l preserve-fds -d 'Pass this many of the caller\'s descriptors, from 3 on' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l preserve-fd -d 'Pass these descriptors of the caller, under their numbers' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l name -d 'Name of the container' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s e -l env -d 'Set an environment variable; NAME alone takes the caller\'s value' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l env-file -d 'Read environment variables from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand run" -s w -l workdir -d 'Working directory inside' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s u -l user -d 'User and group inside: NAME|UID[:GROUP|GID]' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l group-add -d 'More groups of the user; keep-groups alone: the caller\'s, as for devices' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l entrypoint -d 'Replace the image\'s entry point: a program, or a JSON list' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cidfile -d 'Write the container\'s id to a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand run" -s l -l label -d 'Set a label' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l label-file -d 'Read labels from a file, one a line' -r -F
complete -c rless -n "__fish_rless_using_subcommand run" -l annotation -d 'Set an annotation of the runtime specification' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l stop-signal -d 'Signal that stops the container' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l stop-timeout -d 'Seconds after which a container that was asked to stop is killed' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l restart -d 'Start it again when it has ended: no, on-failure[:TIMES], always, unless-stopped' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l sig-proxy -d 'Pass signals on to the container' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand run" -l detach-keys -d 'Keys that leave the container running' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l log-driver -d 'Where output is logged: k8s-file, journald, passthrough or none' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l log-opt -d 'How it is logged: path=FILE, max-size=SIZE, max-file=NUMBER, tag=TEXT, which may be a template' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l sdnotify -d 'Who tells the service manager (NOTIFY_SOCKET) that it is ready: container, conmon, healthy, ignore' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l pull -d 'When to pull: always, missing, never, newer' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l platform -d 'Choose the image for OS/ARCH[/VARIANT] instead of this machine\'s' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l arch -d 'Choose the image for this architecture' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l os -d 'Choose the image for this operating system' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l variant -d 'Choose the image for this variant of the architecture' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l tls-verify -d 'Require https and a valid certificate (--tls-verify=false: do not)' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand run" -l authfile -d 'Read credentials from this file only' -r -F
complete -c rless -n "__fish_rless_using_subcommand run" -l creds -d 'Log in with these credentials' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s v -l volume -d 'Mount a host path or a named volume' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l mount -d 'Mount a file system: type=bind|volume|tmpfs,source=…,target=…' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l tmpfs -d 'Mount a tmpfs' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l device -d 'Give a device of the host, or all of a directory: HOST[:CONTAINER][:PERMISSIONS]' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l read-only-tmpfs -d 'With --read-only: writable tmpfs on /run, /tmp and /var/tmp' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand run" -l shm-size -d 'Size of /dev/shm' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l storage-opt -d 'Bound of what the container may change in its file system: size=SIZE' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l network -l net -d 'Network: pasta[:OPTIONS], none, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s p -l publish -d 'Publish a port: [[HOSTIP:][HOSTPORT]:]PORT[/tcp|/udp], ranges too' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l expose -d 'Say that the container listens on a port: PORT[-PORT][/tcp|/udp]' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s h -l hostname -d 'Host name of the container' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l add-host -d 'Add a line to /etc/hosts: HOST:IP' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l dns -d 'Name server' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l dns-search -d 'Search domain' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l dns-option -l dns-opt -d 'Option of resolv.conf' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l userns -d 'User namespace: host, keep-id[:uid=N,gid=N], nomap, auto[:size=N]' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l uidmap -d 'Map user ids: CONTAINER:HOST:COUNT' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l gidmap -d 'Map group ids: CONTAINER:HOST:COUNT' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cap-add -d 'Add a capability' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cap-drop -d 'Drop a capability' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l security-opt -d 'seccomp=FILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS|ALL, apparmor=PROFILE, label=…' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l ulimit -d 'Resource limit: NAME=SOFT[:HARD]' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l sysctl -d 'Set a namespaced kernel parameter' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s m -l memory -d 'Memory limit; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l memory-swap -d 'Memory and swap together; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l memory-reservation -d 'Memory kept from being reclaimed' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l memory-high -d 'Memory beyond which the container is slowed and reclaimed from, not killed; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cpus -d 'CPUs\' worth of time; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s c -l cpu-shares -d 'Share of CPU time against others, 1024 by default' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cpu-quota -d 'Microseconds of CPU time in a period; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cpu-period -d 'Period of --cpu-quota, microseconds, 100000 by default' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cpuset-cpus -d 'CPUs to run on, as 0-3,5' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cpuset-mems -d 'Memory nodes to take memory from, as 0-1' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l pids-limit -d 'Most processes and threads; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l device-read-bps -d 'Most bytes a second read from a disk, as /dev/sda:1mb; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l device-write-bps -d 'Most bytes a second written to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l device-read-iops -d 'Most reads a second from a disk, as /dev/sda:100; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l device-write-iops -d 'Most writes a second to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l blkio-weight -d 'Share of disks against others, 10 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l blkio-weight-device -d 'The same on one disk' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cgroup-conf -d 'Write to a file of cgroup v2, as memory.high=1073741824, whatever the other flags say' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-cmd -d 'Command that tells whether the container is well: a line for the shell, a JSON array, or none' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-interval -d 'Time between two checks, 30s by default; disable: only when asked to' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-timeout -d 'Time after which a check has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-retries -d 'Failures in a row that make the container unhealthy, 3 by default' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-start-period -d 'Time after the start in which failures do not count' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-on-failure -d 'What follows when it becomes unhealthy: none, kill, restart, stop' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-max-log-count -d 'Results that are kept, 5 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-max-log-size -d 'Bytes of each that are kept, 500 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-log-destination -d 'Where the results go: local, events_logger, or a directory for a copy of them' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-startup-cmd -d 'Another check, which runs instead until it has passed' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-startup-interval -d 'Time between two of those, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-startup-timeout -d 'Time after which one of those has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-startup-retries -d 'How often those may fail before the container is started again; 0: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l health-startup-success -d 'How often in a row it must pass; 0: once' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l volumes-from -d 'Mount the volumes of another container: NAME[:ro,z]' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l pid -d 'PID namespace: private, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l ipc -d 'IPC namespace and /dev/shm: shareable, private, none, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l uts -d 'UTS namespace, which has the host name: private, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s a -l attach -d 'Attach to standard input, output or error only: stdin, stdout, stderr' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l env-merge -d 'Set a variable whose value may name the image\'s: PATH=${PATH}:/more' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l unsetenv -d 'Leave out a variable of the image' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l http-proxy -d 'Pass http_proxy, https_proxy, ftp_proxy and no_proxy of the caller' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand run" -l image-volume -d 'What the image\'s volumes become: anonymous (bind is the same), tmpfs, ignore' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l umask -d 'File mode mask of the command, octal' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l tz -d 'Time zone as the host has it, as Europe/Berlin, or local' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l pidfile -d 'Write the PID of its first process to a file at every start' -r -F
complete -c rless -n "__fish_rless_using_subcommand run" -l timeout -d 'Seconds after which it is killed; 0 never' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l passwd -d 'Lines in /etc/passwd and /etc/group for a user that the image does not know' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand run" -l passwd-entry -d 'The line in /etc/passwd, with $USERNAME, $UID, $GID, $NAME and $HOME in it' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l group-entry -d 'The line in /etc/group, with $GID in it' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l oom-score-adj -d 'How readily the kernel kills it when memory is short, -1000 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l systemd -d 'Prepare the container for systemd: true and false leave it as it is' -r
complete -c rless -n "__fish_rless_using_subcommand run" -l cgroupns -d 'Control group namespace: private' -r
complete -c rless -n "__fish_rless_using_subcommand run" -s d -l detach -d 'Run in the background and print the container\'s id'
complete -c rless -n "__fish_rless_using_subcommand run" -l rmi -d 'Remove the image, too, when the container has ended, unless another uses it; means --rm'
complete -c rless -n "__fish_rless_using_subcommand run" -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand run" -s i -l interactive -d 'Keep standard input open and pass it to the container'
complete -c rless -n "__fish_rless_using_subcommand run" -s t -l tty -d 'Give the container a terminal'
complete -c rless -n "__fish_rless_using_subcommand run" -l rm -d 'Remove the container when it has ended'
complete -c rless -n "__fish_rless_using_subcommand run" -l replace -d 'Remove a container of the same name first'
complete -c rless -n "__fish_rless_using_subcommand run" -l env-host -d 'Pass the caller\'s whole environment'
complete -c rless -n "__fish_rless_using_subcommand run" -l init -d 'Run a small init as PID 1 that reaps processes and forwards signals'
complete -c rless -n "__fish_rless_using_subcommand run" -s q -l quiet -d 'No output while pulling'
complete -c rless -n "__fish_rless_using_subcommand run" -l read-only -d 'Make the root file system read-only'
complete -c rless -n "__fish_rless_using_subcommand run" -l rootfs -d 'IMAGE is a host directory, read-only below the container\'s changes'
complete -c rless -n "__fish_rless_using_subcommand run" -l no-hosts -d 'No /etc/hosts of ours'
complete -c rless -n "__fish_rless_using_subcommand run" -l privileged -d 'Every capability, no seccomp filter, nothing masked; never more than the caller has'
complete -c rless -n "__fish_rless_using_subcommand run" -l no-healthcheck -d 'No health check, whatever the image says'
complete -c rless -n "__fish_rless_using_subcommand run" -l unsetenv-all -d 'Leave out the image\'s variables and the usual ones'
complete -c rless -n "__fish_rless_using_subcommand run" -s P -l publish-all -d 'Publish every exposed port on a free port of the host'
complete -c rless -n "__fish_rless_using_subcommand run" -l no-hostname -d 'No /etc/hostname of ours'
complete -c rless -n "__fish_rless_using_subcommand run" -l disable-content-trust -d 'For docker\'s scripts: signatures are a matter of policy.json, which is not looked at'
complete -c rless -n "__fish_rless_using_subcommand ps" -s f -l filter -d 'Show some only: name=, id=, status=, exited=, label=, ancestor=, volume=, network=, since=, before=, until=, health=, restart-policy=' -r
complete -c rless -n "__fish_rless_using_subcommand ps" -l format -d 'Print JSON (`json`), a Go template, or `table` and a template' -r
complete -c rless -n "__fish_rless_using_subcommand ps" -s n -l last -d 'Show the last N that were made, running or not' -r
complete -c rless -n "__fish_rless_using_subcommand ps" -l sort -d 'Sort by command, created, id, image, names, runningfor, size, status' -r
complete -c rless -n "__fish_rless_using_subcommand ps" -s w -l watch -d 'Show them again and again, every so many seconds' -r
complete -c rless -n "__fish_rless_using_subcommand ps" -s a -l all -d 'Show those that do not run, too'
complete -c rless -n "__fish_rless_using_subcommand ps" -s q -l quiet -d 'Show ids only'
complete -c rless -n "__fish_rless_using_subcommand ps" -s l -l latest -d 'Show the last one that was made, running or not'
complete -c rless -n "__fish_rless_using_subcommand ps" -l no-trunc -d 'Do not shorten anything'
complete -c rless -n "__fish_rless_using_subcommand ps" -l noheading -d 'Do not print headings'
complete -c rless -n "__fish_rless_using_subcommand ps" -l ns -d 'Show the namespaces instead'
complete -c rless -n "__fish_rless_using_subcommand ps" -s p -l pod -d 'Show pods (there are none)'
complete -c rless -n "__fish_rless_using_subcommand ps" -s s -l size -d 'Show how much each container changed'
complete -c rless -n "__fish_rless_using_subcommand ps" -l sync -d 'For podman\'s scripts: there is nothing to synchronise'
complete -c rless -n "__fish_rless_using_subcommand ps" -l external -d 'For podman\'s scripts: there are no containers of others in the store'
complete -c rless -n "__fish_rless_using_subcommand ps" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand rm" -s t -l time -d 'Seconds to wait for a container to stop before it is killed' -r
complete -c rless -n "__fish_rless_using_subcommand rm" -l filter -d 'Remove those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand rm" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand rm" -s a -l all -d 'Remove all containers'
complete -c rless -n "__fish_rless_using_subcommand rm" -s f -l force -d 'Stop running containers first'
complete -c rless -n "__fish_rless_using_subcommand rm" -s i -l ignore -d 'No such container is no error'
complete -c rless -n "__fish_rless_using_subcommand rm" -s l -l latest -d 'Remove the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand rm" -s v -l volumes -d 'Remove the containers\' anonymous volumes, too'
complete -c rless -n "__fish_rless_using_subcommand rm" -l depend -d 'Remove the containers that use namespaces of these, too'
complete -c rless -n "__fish_rless_using_subcommand rm" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand snapshot" -l list -d 'List the container\'s snapshots'
complete -c rless -n "__fish_rless_using_subcommand snapshot" -l rm -d 'Remove the snapshot instead'
complete -c rless -n "__fish_rless_using_subcommand snapshot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand stop" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand stop" -s f -l filter -d 'Stop those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand stop" -s t -l time -d 'Seconds to wait before a container is killed; -1: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand stop" -s a -l all -d 'Stop all running containers'
complete -c rless -n "__fish_rless_using_subcommand stop" -s i -l ignore -d 'No such container is no error'
complete -c rless -n "__fish_rless_using_subcommand stop" -s l -l latest -d 'Stop the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand stop" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand start" -l detach-keys -d 'Keys that leave the container running' -r
complete -c rless -n "__fish_rless_using_subcommand start" -s f -l filter -d 'Start those that pass: name=, id=, status=, label=, restart-policy=, …' -r
complete -c rless -n "__fish_rless_using_subcommand start" -l sig-proxy -d 'Pass signals on to the container' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand start" -l all -d 'Start all containers'
complete -c rless -n "__fish_rless_using_subcommand start" -s a -l attach -d 'Stay with the container: its output, its signals, its exit code'
complete -c rless -n "__fish_rless_using_subcommand start" -s i -l interactive -d 'Give it standard input, if it was made with -i'
complete -c rless -n "__fish_rless_using_subcommand start" -s l -l latest -d 'Start the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand start" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand create" -l name -d 'Name of the container' -r
complete -c rless -n "__fish_rless_using_subcommand create" -s e -l env -d 'Set an environment variable; NAME alone takes the caller\'s value' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l env-file -d 'Read environment variables from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand create" -s w -l workdir -d 'Working directory inside' -r
complete -c rless -n "__fish_rless_using_subcommand create" -s u -l user -d 'User and group inside: NAME|UID[:GROUP|GID]' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l group-add -d 'More groups of the user; keep-groups alone: the caller\'s, as for devices' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l entrypoint -d 'Replace the image\'s entry point: a program, or a JSON list' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cidfile -d 'Write the container\'s id to a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand create" -s l -l label -d 'Set a label' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l label-file -d 'Read labels from a file, one a line' -r -F
complete -c rless -n "__fish_rless_using_subcommand create" -l annotation -d 'Set an annotation of the runtime specification' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l stop-signal -d 'Signal that stops the container' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l stop-timeout -d 'Seconds after which a container that was asked to stop is killed' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l restart -d 'Start it again when it has ended: no, on-failure[:TIMES], always, unless-stopped' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l sig-proxy -d 'Pass signals on to the container' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand create" -l detach-keys -d 'Keys that leave the container running' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l log-driver -d 'Where output is logged: k8s-file, journald, passthrough or none' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l log-opt -d 'How it is logged: path=FILE, max-size=SIZE, max-file=NUMBER, tag=TEXT, which may be a template' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l sdnotify -d 'Who tells the service manager (NOTIFY_SOCKET) that it is ready: container, conmon, healthy, ignore' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l pull -d 'When to pull: always, missing, never, newer' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l platform -d 'Choose the image for OS/ARCH[/VARIANT] instead of this machine\'s' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l arch -d 'Choose the image for this architecture' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l os -d 'Choose the image for this operating system' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l variant -d 'Choose the image for this variant of the architecture' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l tls-verify -d 'Require https and a valid certificate (--tls-verify=false: do not)' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand create" -l authfile -d 'Read credentials from this file only' -r -F
complete -c rless -n "__fish_rless_using_subcommand create" -l creds -d 'Log in with these credentials' -r
complete -c rless -n "__fish_rless_using_subcommand create" -s v -l volume -d 'Mount a host path or a named volume' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l mount -d 'Mount a file system: type=bind|volume|tmpfs,source=…,target=…' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l tmpfs -d 'Mount a tmpfs' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l device -d 'Give a device of the host, or all of a directory: HOST[:CONTAINER][:PERMISSIONS]' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l read-only-tmpfs -d 'With --read-only: writable tmpfs on /run, /tmp and /var/tmp' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand create" -l shm-size -d 'Size of /dev/shm' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l storage-opt -d 'Bound of what the container may change in its file system: size=SIZE' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l network -l net -d 'Network: pasta[:OPTIONS], none, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand create" -s p -l publish -d 'Publish a port: [[HOSTIP:][HOSTPORT]:]PORT[/tcp|/udp], ranges too' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l expose -d 'Say that the container listens on a port: PORT[-PORT][/tcp|/udp]' -r
complete -c rless -n "__fish_rless_using_subcommand create" -s h -l hostname -d 'Host name of the container' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l add-host -d 'Add a line to /etc/hosts: HOST:IP' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l dns -d 'Name server' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l dns-search -d 'Search domain' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l dns-option -l dns-opt -d 'Option of resolv.conf' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l userns -d 'User namespace: host, keep-id[:uid=N,gid=N], nomap, auto[:size=N]' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l uidmap -d 'Map user ids: CONTAINER:HOST:COUNT' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l gidmap -d 'Map group ids: CONTAINER:HOST:COUNT' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cap-add -d 'Add a capability' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cap-drop -d 'Drop a capability' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l security-opt -d 'seccomp=FILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS|ALL, apparmor=PROFILE, label=…' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l ulimit -d 'Resource limit: NAME=SOFT[:HARD]' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l sysctl -d 'Set a namespaced kernel parameter' -r
complete -c rless -n "__fish_rless_using_subcommand create" -s m -l memory -d 'Memory limit; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l memory-swap -d 'Memory and swap together; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l memory-reservation -d 'Memory kept from being reclaimed' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l memory-high -d 'Memory beyond which the container is slowed and reclaimed from, not killed; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cpus -d 'CPUs\' worth of time; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand create" -s c -l cpu-shares -d 'Share of CPU time against others, 1024 by default' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cpu-quota -d 'Microseconds of CPU time in a period; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cpu-period -d 'Period of --cpu-quota, microseconds, 100000 by default' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cpuset-cpus -d 'CPUs to run on, as 0-3,5' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cpuset-mems -d 'Memory nodes to take memory from, as 0-1' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l pids-limit -d 'Most processes and threads; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l device-read-bps -d 'Most bytes a second read from a disk, as /dev/sda:1mb; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l device-write-bps -d 'Most bytes a second written to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l device-read-iops -d 'Most reads a second from a disk, as /dev/sda:100; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l device-write-iops -d 'Most writes a second to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l blkio-weight -d 'Share of disks against others, 10 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l blkio-weight-device -d 'The same on one disk' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cgroup-conf -d 'Write to a file of cgroup v2, as memory.high=1073741824, whatever the other flags say' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-cmd -d 'Command that tells whether the container is well: a line for the shell, a JSON array, or none' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-interval -d 'Time between two checks, 30s by default; disable: only when asked to' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-timeout -d 'Time after which a check has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-retries -d 'Failures in a row that make the container unhealthy, 3 by default' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-start-period -d 'Time after the start in which failures do not count' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-on-failure -d 'What follows when it becomes unhealthy: none, kill, restart, stop' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-max-log-count -d 'Results that are kept, 5 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-max-log-size -d 'Bytes of each that are kept, 500 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-log-destination -d 'Where the results go: local, events_logger, or a directory for a copy of them' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-startup-cmd -d 'Another check, which runs instead until it has passed' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-startup-interval -d 'Time between two of those, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-startup-timeout -d 'Time after which one of those has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-startup-retries -d 'How often those may fail before the container is started again; 0: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l health-startup-success -d 'How often in a row it must pass; 0: once' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l volumes-from -d 'Mount the volumes of another container: NAME[:ro,z]' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l pid -d 'PID namespace: private, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l ipc -d 'IPC namespace and /dev/shm: shareable, private, none, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l uts -d 'UTS namespace, which has the host name: private, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand create" -s a -l attach -d 'Attach to standard input, output or error only: stdin, stdout, stderr' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l env-merge -d 'Set a variable whose value may name the image\'s: PATH=${PATH}:/more' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l unsetenv -d 'Leave out a variable of the image' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l http-proxy -d 'Pass http_proxy, https_proxy, ftp_proxy and no_proxy of the caller' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand create" -l image-volume -d 'What the image\'s volumes become: anonymous (bind is the same), tmpfs, ignore' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l umask -d 'File mode mask of the command, octal' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l tz -d 'Time zone as the host has it, as Europe/Berlin, or local' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l pidfile -d 'Write the PID of its first process to a file at every start' -r -F
complete -c rless -n "__fish_rless_using_subcommand create" -l timeout -d 'Seconds after which it is killed; 0 never' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l passwd -d 'Lines in /etc/passwd and /etc/group for a user that the image does not know' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand create" -l passwd-entry -d 'The line in /etc/passwd, with $USERNAME, $UID, $GID, $NAME and $HOME in it' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l group-entry -d 'The line in /etc/group, with $GID in it' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l oom-score-adj -d 'How readily the kernel kills it when memory is short, -1000 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l systemd -d 'Prepare the container for systemd: true and false leave it as it is' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l cgroupns -d 'Control group namespace: private' -r
complete -c rless -n "__fish_rless_using_subcommand create" -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand create" -s i -l interactive -d 'Keep standard input open and pass it to the container'
complete -c rless -n "__fish_rless_using_subcommand create" -s t -l tty -d 'Give the container a terminal'
complete -c rless -n "__fish_rless_using_subcommand create" -l rm -d 'Remove the container when it has ended'
complete -c rless -n "__fish_rless_using_subcommand create" -l replace -d 'Remove a container of the same name first'
complete -c rless -n "__fish_rless_using_subcommand create" -l env-host -d 'Pass the caller\'s whole environment'
complete -c rless -n "__fish_rless_using_subcommand create" -l init -d 'Run a small init as PID 1 that reaps processes and forwards signals'
complete -c rless -n "__fish_rless_using_subcommand create" -s q -l quiet -d 'No output while pulling'
complete -c rless -n "__fish_rless_using_subcommand create" -l read-only -d 'Make the root file system read-only'
complete -c rless -n "__fish_rless_using_subcommand create" -l rootfs -d 'IMAGE is a host directory, read-only below the container\'s changes'
complete -c rless -n "__fish_rless_using_subcommand create" -l no-hosts -d 'No /etc/hosts of ours'
complete -c rless -n "__fish_rless_using_subcommand create" -l privileged -d 'Every capability, no seccomp filter, nothing masked; never more than the caller has'
complete -c rless -n "__fish_rless_using_subcommand create" -l no-healthcheck -d 'No health check, whatever the image says'
complete -c rless -n "__fish_rless_using_subcommand create" -l unsetenv-all -d 'Leave out the image\'s variables and the usual ones'
complete -c rless -n "__fish_rless_using_subcommand create" -s P -l publish-all -d 'Publish every exposed port on a free port of the host'
complete -c rless -n "__fish_rless_using_subcommand create" -l no-hostname -d 'No /etc/hostname of ours'
complete -c rless -n "__fish_rless_using_subcommand create" -l disable-content-trust -d 'For docker\'s scripts: signatures are a matter of policy.json, which is not looked at'
complete -c rless -n "__fish_rless_using_subcommand kill" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand kill" -s s -l signal -d 'Name or number' -r
complete -c rless -n "__fish_rless_using_subcommand kill" -s a -l all -d 'Signal all running containers'
complete -c rless -n "__fish_rless_using_subcommand kill" -s l -l latest -d 'Signal the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand kill" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand pause" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand pause" -s f -l filter -d 'Those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand pause" -s a -l all -d 'All to which it applies'
complete -c rless -n "__fish_rless_using_subcommand pause" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand pause" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand unpause" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand unpause" -s f -l filter -d 'Those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand unpause" -s a -l all -d 'All to which it applies'
complete -c rless -n "__fish_rless_using_subcommand unpause" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand unpause" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand rename" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand restart" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand restart" -s f -l filter -d 'Those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand restart" -s t -l time -d 'Seconds to wait before a container is killed; -1: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand restart" -s a -l all -d 'All containers, whether they run or not'
complete -c rless -n "__fish_rless_using_subcommand restart" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand restart" -l running -d 'Those that run'
complete -c rless -n "__fish_rless_using_subcommand restart" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand wait" -l condition -d 'Wait for this state: created, initialized, running, paused, stopping, stopped, exited, removing, healthy, unhealthy' -r
complete -c rless -n "__fish_rless_using_subcommand wait" -s i -l interval -d 'How often to look, where it takes looking: milliseconds, or with a unit (250ms, 2s)' -r
complete -c rless -n "__fish_rless_using_subcommand wait" -l ignore -d 'No such container is no error: its code is -1'
complete -c rless -n "__fish_rless_using_subcommand wait" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand wait" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand update" -s m -l memory -d 'Memory limit; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l memory-swap -d 'Memory and swap together; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l memory-reservation -d 'Memory kept from being reclaimed' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l memory-high -d 'Memory beyond which the container is slowed and reclaimed from, not killed; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l cpus -d 'CPUs\' worth of time; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand update" -s c -l cpu-shares -d 'Share of CPU time against others, 1024 by default' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l cpu-quota -d 'Microseconds of CPU time in a period; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l cpu-period -d 'Period of --cpu-quota, microseconds, 100000 by default' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l cpuset-cpus -d 'CPUs to run on, as 0-3,5' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l cpuset-mems -d 'Memory nodes to take memory from, as 0-1' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l pids-limit -d 'Most processes and threads; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l device-read-bps -d 'Most bytes a second read from a disk, as /dev/sda:1mb; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l device-write-bps -d 'Most bytes a second written to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l device-read-iops -d 'Most reads a second from a disk, as /dev/sda:100; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l device-write-iops -d 'Most writes a second to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l blkio-weight -d 'Share of disks against others, 10 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l blkio-weight-device -d 'The same on one disk' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l cgroup-conf -d 'Write to a file of cgroup v2, as memory.high=1073741824, whatever the other flags say' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-cmd -d 'Command that tells whether the container is well: a line for the shell, a JSON array, or none' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-interval -d 'Time between two checks, 30s by default; disable: only when asked to' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-timeout -d 'Time after which a check has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-retries -d 'Failures in a row that make the container unhealthy, 3 by default' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-start-period -d 'Time after the start in which failures do not count' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-on-failure -d 'What follows when it becomes unhealthy: none, kill, restart, stop' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-max-log-count -d 'Results that are kept, 5 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-max-log-size -d 'Bytes of each that are kept, 500 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-log-destination -d 'Where the results go: local, events_logger, or a directory for a copy of them' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-startup-cmd -d 'Another check, which runs instead until it has passed' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-startup-interval -d 'Time between two of those, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-startup-timeout -d 'Time after which one of those has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-startup-retries -d 'How often those may fail before the container is started again; 0: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l health-startup-success -d 'How often in a row it must pass; 0: once' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l restart -d 'When to start it again: no, on-failure[:TIMES], always, unless-stopped' -r
complete -c rless -n "__fish_rless_using_subcommand update" -l no-healthcheck -d 'No health check, whatever the image says'
complete -c rless -n "__fish_rless_using_subcommand update" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "attach" -d 'Attach to a running container'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "commit" -d 'Make an image of a container: its own image, and over it what the container changed'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "cp" -d 'Copy files between a container and the host, between containers, or from and to a tar stream'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "create" -d 'Make a container without starting it'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "diff" -d 'Show what a container changed in its file system, or what an image\'s uppermost layer did'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "exec" -d 'Run a command in a running container'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "exists" -d 'Whether there is such a container: exit code 0, or 1'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "export" -d 'Write a container\'s files as a tar archive'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "inspect" -d 'As `rless image inspect` and `rless container inspect`'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "kill" -d 'Send a signal to the first process of containers'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "list" -d 'List containers'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "ls" -d 'List containers'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "ps" -d 'List containers'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "logs" -d 'Show what containers wrote'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "pause" -d 'Freeze all processes of containers'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "port" -d 'Show a container\'s published ports'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "prune" -d 'Remove all containers that do not run'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "rename" -d 'Give a container another name'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "restart" -d 'Stop containers, if they run, and start them'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "restore" -d 'Put a container\'s files back into the state of a snapshot'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "rm" -d 'Remove containers'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "run" -d 'Run a command in a new container'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "snapshot" -d 'Keep the state that a container\'s files have now, to restore it later'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "start" -d 'Start containers'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "stats" -d 'Show what containers use: CPU, memory, network, block I/O, processes'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "stop" -d 'Stop containers'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "top" -d 'Show the processes of a container'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "unpause" -d 'Let the processes of paused containers go on'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "update" -d 'Change the limits, the restart policy and the health check of a container'
complete -c rless -n "__fish_rless_using_subcommand container; and not __fish_seen_subcommand_from attach commit cp create diff exec exists export inspect kill list ls ps logs pause port prune rename restart restore rm run snapshot start stats stop top unpause update wait" -f -a "wait" -d 'Wait until containers have ended, and print their exit codes'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from attach" -l detach-keys -d 'Keys that leave the container running' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from attach" -l sig-proxy -d 'Pass signals on to the container' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from attach" -s l -l latest -d 'Attach to the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from attach" -l no-stdin -d 'Do not pass standard input to the container'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -s a -l author -d 'Author' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -s c -l change -d 'Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL; with -f docker also ONBUILD, HEALTHCHECK' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -s f -l format -d 'oci, or docker' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -l iidfile -d 'Write the image\'s id to a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -s m -l message -d 'Message, with -f docker' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -l include-volumes -d 'The container\'s mounts become volumes of the image'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -s p -l pause -d 'Pause the container while its files are looked at'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -s q -l quiet -d 'Show the id only'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -s s -l squash -d 'Make one layer of the image and the changes'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from commit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from cp" -s a -l archive -d 'What is copied into a container belongs to the user it runs as' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from cp" -l overwrite -d 'Let a directory replace something else, and the other way round'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from cp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l name -d 'Name of the container' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s e -l env -d 'Set an environment variable; NAME alone takes the caller\'s value' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l env-file -d 'Read environment variables from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s w -l workdir -d 'Working directory inside' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s u -l user -d 'User and group inside: NAME|UID[:GROUP|GID]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l group-add -d 'More groups of the user; keep-groups alone: the caller\'s, as for devices' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l entrypoint -d 'Replace the image\'s entry point: a program, or a JSON list' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cidfile -d 'Write the container\'s id to a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s l -l label -d 'Set a label' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l label-file -d 'Read labels from a file, one a line' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l annotation -d 'Set an annotation of the runtime specification' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l stop-signal -d 'Signal that stops the container' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l stop-timeout -d 'Seconds after which a container that was asked to stop is killed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l restart -d 'Start it again when it has ended: no, on-failure[:TIMES], always, unless-stopped' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l sig-proxy -d 'Pass signals on to the container' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l detach-keys -d 'Keys that leave the container running' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l log-driver -d 'Where output is logged: k8s-file, journald, passthrough or none' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l log-opt -d 'How it is logged: path=FILE, max-size=SIZE, max-file=NUMBER, tag=TEXT, which may be a template' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l sdnotify -d 'Who tells the service manager (NOTIFY_SOCKET) that it is ready: container, conmon, healthy, ignore' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l pull -d 'When to pull: always, missing, never, newer' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l platform -d 'Choose the image for OS/ARCH[/VARIANT] instead of this machine\'s' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l arch -d 'Choose the image for this architecture' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l os -d 'Choose the image for this operating system' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l variant -d 'Choose the image for this variant of the architecture' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l tls-verify -d 'Require https and a valid certificate (--tls-verify=false: do not)' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l authfile -d 'Read credentials from this file only' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l creds -d 'Log in with these credentials' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s v -l volume -d 'Mount a host path or a named volume' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l mount -d 'Mount a file system: type=bind|volume|tmpfs,source=…,target=…' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l tmpfs -d 'Mount a tmpfs' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l device -d 'Give a device of the host, or all of a directory: HOST[:CONTAINER][:PERMISSIONS]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l read-only-tmpfs -d 'With --read-only: writable tmpfs on /run, /tmp and /var/tmp' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l shm-size -d 'Size of /dev/shm' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l storage-opt -d 'Bound of what the container may change in its file system: size=SIZE' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l network -l net -d 'Network: pasta[:OPTIONS], none, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s p -l publish -d 'Publish a port: [[HOSTIP:][HOSTPORT]:]PORT[/tcp|/udp], ranges too' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l expose -d 'Say that the container listens on a port: PORT[-PORT][/tcp|/udp]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s h -l hostname -d 'Host name of the container' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l add-host -d 'Add a line to /etc/hosts: HOST:IP' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l dns -d 'Name server' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l dns-search -d 'Search domain' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l dns-option -l dns-opt -d 'Option of resolv.conf' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l userns -d 'User namespace: host, keep-id[:uid=N,gid=N], nomap, auto[:size=N]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l uidmap -d 'Map user ids: CONTAINER:HOST:COUNT' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l gidmap -d 'Map group ids: CONTAINER:HOST:COUNT' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cap-add -d 'Add a capability' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cap-drop -d 'Drop a capability' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l security-opt -d 'seccomp=FILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS|ALL, apparmor=PROFILE, label=…' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l ulimit -d 'Resource limit: NAME=SOFT[:HARD]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l sysctl -d 'Set a namespaced kernel parameter' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s m -l memory -d 'Memory limit; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l memory-swap -d 'Memory and swap together; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l memory-reservation -d 'Memory kept from being reclaimed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l memory-high -d 'Memory beyond which the container is slowed and reclaimed from, not killed; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cpus -d 'CPUs\' worth of time; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s c -l cpu-shares -d 'Share of CPU time against others, 1024 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cpu-quota -d 'Microseconds of CPU time in a period; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cpu-period -d 'Period of --cpu-quota, microseconds, 100000 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cpuset-cpus -d 'CPUs to run on, as 0-3,5' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cpuset-mems -d 'Memory nodes to take memory from, as 0-1' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l pids-limit -d 'Most processes and threads; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l device-read-bps -d 'Most bytes a second read from a disk, as /dev/sda:1mb; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l device-write-bps -d 'Most bytes a second written to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l device-read-iops -d 'Most reads a second from a disk, as /dev/sda:100; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l device-write-iops -d 'Most writes a second to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l blkio-weight -d 'Share of disks against others, 10 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l blkio-weight-device -d 'The same on one disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cgroup-conf -d 'Write to a file of cgroup v2, as memory.high=1073741824, whatever the other flags say' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-cmd -d 'Command that tells whether the container is well: a line for the shell, a JSON array, or none' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-interval -d 'Time between two checks, 30s by default; disable: only when asked to' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-timeout -d 'Time after which a check has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-retries -d 'Failures in a row that make the container unhealthy, 3 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-start-period -d 'Time after the start in which failures do not count' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-on-failure -d 'What follows when it becomes unhealthy: none, kill, restart, stop' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-max-log-count -d 'Results that are kept, 5 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-max-log-size -d 'Bytes of each that are kept, 500 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-log-destination -d 'Where the results go: local, events_logger, or a directory for a copy of them' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-startup-cmd -d 'Another check, which runs instead until it has passed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-startup-interval -d 'Time between two of those, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-startup-timeout -d 'Time after which one of those has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-startup-retries -d 'How often those may fail before the container is started again; 0: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l health-startup-success -d 'How often in a row it must pass; 0: once' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l volumes-from -d 'Mount the volumes of another container: NAME[:ro,z]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l pid -d 'PID namespace: private, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l ipc -d 'IPC namespace and /dev/shm: shareable, private, none, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l uts -d 'UTS namespace, which has the host name: private, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s a -l attach -d 'Attach to standard input, output or error only: stdin, stdout, stderr' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l env-merge -d 'Set a variable whose value may name the image\'s: PATH=${PATH}:/more' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l unsetenv -d 'Leave out a variable of the image' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l http-proxy -d 'Pass http_proxy, https_proxy, ftp_proxy and no_proxy of the caller' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l image-volume -d 'What the image\'s volumes become: anonymous (bind is the same), tmpfs, ignore' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l umask -d 'File mode mask of the command, octal' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l tz -d 'Time zone as the host has it, as Europe/Berlin, or local' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l pidfile -d 'Write the PID of its first process to a file at every start' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l timeout -d 'Seconds after which it is killed; 0 never' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l passwd -d 'Lines in /etc/passwd and /etc/group for a user that the image does not know' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l passwd-entry -d 'The line in /etc/passwd, with $USERNAME, $UID, $GID, $NAME and $HOME in it' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l group-entry -d 'The line in /etc/group, with $GID in it' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l oom-score-adj -d 'How readily the kernel kills it when memory is short, -1000 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l systemd -d 'Prepare the container for systemd: true and false leave it as it is' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l cgroupns -d 'Control group namespace: private' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s i -l interactive -d 'Keep standard input open and pass it to the container'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s t -l tty -d 'Give the container a terminal'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l rm -d 'Remove the container when it has ended'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l replace -d 'Remove a container of the same name first'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l env-host -d 'Pass the caller\'s whole environment'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l init -d 'Run a small init as PID 1 that reaps processes and forwards signals'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s q -l quiet -d 'No output while pulling'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l read-only -d 'Make the root file system read-only'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l rootfs -d 'IMAGE is a host directory, read-only below the container\'s changes'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l no-hosts -d 'No /etc/hosts of ours'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l privileged -d 'Every capability, no seccomp filter, nothing masked; never more than the caller has'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l no-healthcheck -d 'No health check, whatever the image says'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l unsetenv-all -d 'Leave out the image\'s variables and the usual ones'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -s P -l publish-all -d 'Publish every exposed port on a free port of the host'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l no-hostname -d 'No /etc/hostname of ours'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from create" -l disable-content-trust -d 'For docker\'s scripts: signatures are a matter of policy.json, which is not looked at'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from diff" -l format -d '`json`' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from diff" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -l detach-keys -d 'Keys that leave the command running' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -s e -l env -d 'Set an environment variable; NAME alone takes the caller\'s value' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -l env-file -d 'Read environment variables from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -l preserve-fds -d 'Pass this many of the caller\'s descriptors, from 3 on' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -l preserve-fd -d 'Pass these descriptors of the caller, under their numbers' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -s u -l user -d 'User and group inside: NAME|UID[:GROUP|GID]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -s w -l workdir -d 'Working directory inside' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -s d -l detach -d 'Run in the background and print the session\'s id'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -s i -l interactive -d 'Keep standard input open and pass it to the command'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -l privileged -d 'Give the command all capabilities'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -s t -l tty -d 'Give the command a terminal'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exec" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exists" -l external -d 'For podman\'s scripts: there are no containers of others in the store'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from exists" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from export" -s o -l output -d 'Write to a file instead of standard output' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from inspect" -s f -l format -d 'Render a Go template for each instead of JSON' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from inspect" -s l -l latest -d 'Show the last one that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from inspect" -s s -l size -d 'Add what containers take on disk'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from kill" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from kill" -s s -l signal -d 'Name or number' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from kill" -s a -l all -d 'Signal all running containers'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from kill" -s l -l latest -d 'Signal the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from kill" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s f -l filter -d 'Show some only: name=, id=, status=, exited=, label=, ancestor=, volume=, network=, since=, before=, until=, health=, restart-policy=' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -l format -d 'Print JSON (`json`), a Go template, or `table` and a template' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s n -l last -d 'Show the last N that were made, running or not' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -l sort -d 'Sort by command, created, id, image, names, runningfor, size, status' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s w -l watch -d 'Show them again and again, every so many seconds' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s a -l all -d 'Show those that do not run, too'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Show ids only'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s l -l latest -d 'Show the last one that was made, running or not'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -l no-trunc -d 'Do not shorten anything'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -l noheading -d 'Do not print headings'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -l ns -d 'Show the namespaces instead'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s p -l pod -d 'Show pods (there are none)'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s s -l size -d 'Show how much each container changed'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -l sync -d 'For podman\'s scripts: there is nothing to synchronise'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -l external -d 'For podman\'s scripts: there are no containers of others in the store'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s f -l filter -d 'Show some only: name=, id=, status=, exited=, label=, ancestor=, volume=, network=, since=, before=, until=, health=, restart-policy=' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -l format -d 'Print JSON (`json`), a Go template, or `table` and a template' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s n -l last -d 'Show the last N that were made, running or not' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -l sort -d 'Sort by command, created, id, image, names, runningfor, size, status' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s w -l watch -d 'Show them again and again, every so many seconds' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s a -l all -d 'Show those that do not run, too'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Show ids only'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s l -l latest -d 'Show the last one that was made, running or not'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -l no-trunc -d 'Do not shorten anything'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -l noheading -d 'Do not print headings'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -l ns -d 'Show the namespaces instead'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s p -l pod -d 'Show pods (there are none)'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s s -l size -d 'Show how much each container changed'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -l sync -d 'For podman\'s scripts: there is nothing to synchronise'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -l external -d 'For podman\'s scripts: there are no containers of others in the store'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s f -l filter -d 'Show some only: name=, id=, status=, exited=, label=, ancestor=, volume=, network=, since=, before=, until=, health=, restart-policy=' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -l format -d 'Print JSON (`json`), a Go template, or `table` and a template' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s n -l last -d 'Show the last N that were made, running or not' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -l sort -d 'Sort by command, created, id, image, names, runningfor, size, status' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s w -l watch -d 'Show them again and again, every so many seconds' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s a -l all -d 'Show those that do not run, too'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s q -l quiet -d 'Show ids only'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s l -l latest -d 'Show the last one that was made, running or not'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -l no-trunc -d 'Do not shorten anything'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -l noheading -d 'Do not print headings'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -l ns -d 'Show the namespaces instead'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s p -l pod -d 'Show pods (there are none)'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s s -l size -d 'Show how much each container changed'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -l sync -d 'For podman\'s scripts: there is nothing to synchronise'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -l external -d 'For podman\'s scripts: there are no containers of others in the store'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from ps" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -l since -d 'Show what was written after a time, or in the last duration (10m)' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -l until -d 'Show what is written before a time, or until a duration from now has passed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -l tail -d 'Show the last lines only; -1: all' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -s f -l follow -d 'Go on until the containers have ended'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -s l -l latest -d 'Show the last container\'s that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -s t -l timestamps -d 'Show when each line was written'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -s n -l names -d 'Show names instead of ids before the lines of several containers'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -l color -d 'Give each container a colour'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -l details -d 'For docker\'s scripts: there are no details'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from logs" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from pause" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from pause" -s f -l filter -d 'Those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from pause" -s a -l all -d 'All to which it applies'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from pause" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from pause" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from port" -s a -l all -d 'Show those of all containers'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from port" -s l -l latest -d 'Show those of the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from port" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from prune" -l filter -d 'Only those that pass: label=, label!=, until=' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from prune" -s f -l force -d 'Do not ask'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rename" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from restart" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from restart" -s f -l filter -d 'Those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from restart" -s t -l time -d 'Seconds to wait before a container is killed; -1: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from restart" -s a -l all -d 'All containers, whether they run or not'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from restart" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from restart" -l running -d 'Those that run'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from restart" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from restore" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -s t -l time -d 'Seconds to wait for a container to stop before it is killed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -l filter -d 'Remove those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -s a -l all -d 'Remove all containers'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -s f -l force -d 'Stop running containers first'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -s i -l ignore -d 'No such container is no error'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -s l -l latest -d 'Remove the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -s v -l volumes -d 'Remove the containers\' anonymous volumes, too'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -l depend -d 'Remove the containers that use namespaces of these, too'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l preserve-fds -d 'Pass this many of the caller\'s descriptors, from 3 on' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l preserve-fd -d 'Pass these descriptors of the caller, under their numbers' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l name -d 'Name of the container' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s e -l env -d 'Set an environment variable; NAME alone takes the caller\'s value' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l env-file -d 'Read environment variables from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s w -l workdir -d 'Working directory inside' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s u -l user -d 'User and group inside: NAME|UID[:GROUP|GID]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l group-add -d 'More groups of the user; keep-groups alone: the caller\'s, as for devices' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l entrypoint -d 'Replace the image\'s entry point: a program, or a JSON list' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cidfile -d 'Write the container\'s id to a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s l -l label -d 'Set a label' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l label-file -d 'Read labels from a file, one a line' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l annotation -d 'Set an annotation of the runtime specification' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l stop-signal -d 'Signal that stops the container' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l stop-timeout -d 'Seconds after which a container that was asked to stop is killed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l restart -d 'Start it again when it has ended: no, on-failure[:TIMES], always, unless-stopped' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l sig-proxy -d 'Pass signals on to the container' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l detach-keys -d 'Keys that leave the container running' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l log-driver -d 'Where output is logged: k8s-file, journald, passthrough or none' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l log-opt -d 'How it is logged: path=FILE, max-size=SIZE, max-file=NUMBER, tag=TEXT, which may be a template' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l sdnotify -d 'Who tells the service manager (NOTIFY_SOCKET) that it is ready: container, conmon, healthy, ignore' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l pull -d 'When to pull: always, missing, never, newer' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l platform -d 'Choose the image for OS/ARCH[/VARIANT] instead of this machine\'s' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l arch -d 'Choose the image for this architecture' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l os -d 'Choose the image for this operating system' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l variant -d 'Choose the image for this variant of the architecture' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l tls-verify -d 'Require https and a valid certificate (--tls-verify=false: do not)' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l authfile -d 'Read credentials from this file only' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l creds -d 'Log in with these credentials' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s v -l volume -d 'Mount a host path or a named volume' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l mount -d 'Mount a file system: type=bind|volume|tmpfs,source=…,target=…' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l tmpfs -d 'Mount a tmpfs' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l device -d 'Give a device of the host, or all of a directory: HOST[:CONTAINER][:PERMISSIONS]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l read-only-tmpfs -d 'With --read-only: writable tmpfs on /run, /tmp and /var/tmp' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l shm-size -d 'Size of /dev/shm' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l storage-opt -d 'Bound of what the container may change in its file system: size=SIZE' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l network -l net -d 'Network: pasta[:OPTIONS], none, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s p -l publish -d 'Publish a port: [[HOSTIP:][HOSTPORT]:]PORT[/tcp|/udp], ranges too' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l expose -d 'Say that the container listens on a port: PORT[-PORT][/tcp|/udp]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s h -l hostname -d 'Host name of the container' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l add-host -d 'Add a line to /etc/hosts: HOST:IP' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l dns -d 'Name server' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l dns-search -d 'Search domain' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l dns-option -l dns-opt -d 'Option of resolv.conf' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l userns -d 'User namespace: host, keep-id[:uid=N,gid=N], nomap, auto[:size=N]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l uidmap -d 'Map user ids: CONTAINER:HOST:COUNT' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l gidmap -d 'Map group ids: CONTAINER:HOST:COUNT' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cap-add -d 'Add a capability' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cap-drop -d 'Drop a capability' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l security-opt -d 'seccomp=FILE|unconfined, no-new-privileges, mask=PATHS, unmask=PATHS|ALL, apparmor=PROFILE, label=…' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l ulimit -d 'Resource limit: NAME=SOFT[:HARD]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l sysctl -d 'Set a namespaced kernel parameter' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s m -l memory -d 'Memory limit; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l memory-swap -d 'Memory and swap together; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l memory-reservation -d 'Memory kept from being reclaimed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l memory-high -d 'Memory beyond which the container is slowed and reclaimed from, not killed; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cpus -d 'CPUs\' worth of time; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s c -l cpu-shares -d 'Share of CPU time against others, 1024 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cpu-quota -d 'Microseconds of CPU time in a period; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cpu-period -d 'Period of --cpu-quota, microseconds, 100000 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cpuset-cpus -d 'CPUs to run on, as 0-3,5' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cpuset-mems -d 'Memory nodes to take memory from, as 0-1' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l pids-limit -d 'Most processes and threads; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l device-read-bps -d 'Most bytes a second read from a disk, as /dev/sda:1mb; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l device-write-bps -d 'Most bytes a second written to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l device-read-iops -d 'Most reads a second from a disk, as /dev/sda:100; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l device-write-iops -d 'Most writes a second to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l blkio-weight -d 'Share of disks against others, 10 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l blkio-weight-device -d 'The same on one disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cgroup-conf -d 'Write to a file of cgroup v2, as memory.high=1073741824, whatever the other flags say' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-cmd -d 'Command that tells whether the container is well: a line for the shell, a JSON array, or none' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-interval -d 'Time between two checks, 30s by default; disable: only when asked to' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-timeout -d 'Time after which a check has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-retries -d 'Failures in a row that make the container unhealthy, 3 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-start-period -d 'Time after the start in which failures do not count' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-on-failure -d 'What follows when it becomes unhealthy: none, kill, restart, stop' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-max-log-count -d 'Results that are kept, 5 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-max-log-size -d 'Bytes of each that are kept, 500 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-log-destination -d 'Where the results go: local, events_logger, or a directory for a copy of them' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-startup-cmd -d 'Another check, which runs instead until it has passed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-startup-interval -d 'Time between two of those, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-startup-timeout -d 'Time after which one of those has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-startup-retries -d 'How often those may fail before the container is started again; 0: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l health-startup-success -d 'How often in a row it must pass; 0: once' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l volumes-from -d 'Mount the volumes of another container: NAME[:ro,z]' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l pid -d 'PID namespace: private, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l ipc -d 'IPC namespace and /dev/shm: shareable, private, none, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l uts -d 'UTS namespace, which has the host name: private, host, container:NAME' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s a -l attach -d 'Attach to standard input, output or error only: stdin, stdout, stderr' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l env-merge -d 'Set a variable whose value may name the image\'s: PATH=${PATH}:/more' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l unsetenv -d 'Leave out a variable of the image' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l http-proxy -d 'Pass http_proxy, https_proxy, ftp_proxy and no_proxy of the caller' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l image-volume -d 'What the image\'s volumes become: anonymous (bind is the same), tmpfs, ignore' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l umask -d 'File mode mask of the command, octal' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l tz -d 'Time zone as the host has it, as Europe/Berlin, or local' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l pidfile -d 'Write the PID of its first process to a file at every start' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l timeout -d 'Seconds after which it is killed; 0 never' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l passwd -d 'Lines in /etc/passwd and /etc/group for a user that the image does not know' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l passwd-entry -d 'The line in /etc/passwd, with $USERNAME, $UID, $GID, $NAME and $HOME in it' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l group-entry -d 'The line in /etc/group, with $GID in it' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l oom-score-adj -d 'How readily the kernel kills it when memory is short, -1000 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l systemd -d 'Prepare the container for systemd: true and false leave it as it is' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l cgroupns -d 'Control group namespace: private' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s d -l detach -d 'Run in the background and print the container\'s id'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l rmi -d 'Remove the image, too, when the container has ended, unless another uses it; means --rm'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s i -l interactive -d 'Keep standard input open and pass it to the container'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s t -l tty -d 'Give the container a terminal'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l rm -d 'Remove the container when it has ended'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l replace -d 'Remove a container of the same name first'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l env-host -d 'Pass the caller\'s whole environment'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l init -d 'Run a small init as PID 1 that reaps processes and forwards signals'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s q -l quiet -d 'No output while pulling'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l read-only -d 'Make the root file system read-only'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l rootfs -d 'IMAGE is a host directory, read-only below the container\'s changes'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l no-hosts -d 'No /etc/hosts of ours'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l privileged -d 'Every capability, no seccomp filter, nothing masked; never more than the caller has'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l no-healthcheck -d 'No health check, whatever the image says'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l unsetenv-all -d 'Leave out the image\'s variables and the usual ones'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -s P -l publish-all -d 'Publish every exposed port on a free port of the host'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l no-hostname -d 'No /etc/hostname of ours'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from run" -l disable-content-trust -d 'For docker\'s scripts: signatures are a matter of policy.json, which is not looked at'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from snapshot" -l list -d 'List the container\'s snapshots'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from snapshot" -l rm -d 'Remove the snapshot instead'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from snapshot" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from start" -l detach-keys -d 'Keys that leave the container running' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from start" -s f -l filter -d 'Start those that pass: name=, id=, status=, label=, restart-policy=, …' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from start" -l sig-proxy -d 'Pass signals on to the container' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from start" -l all -d 'Start all containers'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from start" -s a -l attach -d 'Stay with the container: its output, its signals, its exit code'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from start" -s i -l interactive -d 'Give it standard input, if it was made with -i'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from start" -s l -l latest -d 'Start the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from start" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stats" -l format -d 'Print JSON (`json`), a Go template, or `table` and a template' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stats" -s i -l interval -d 'Seconds between two looks' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stats" -s a -l all -d 'Show those that do not run, too'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stats" -s l -l latest -d 'Show the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stats" -l no-reset -d 'Do not clear the screen between two looks'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stats" -l no-stream -d 'Look once'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stats" -l no-trunc -d 'Do not shorten ids'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stats" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stop" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stop" -s f -l filter -d 'Stop those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stop" -s t -l time -d 'Seconds to wait before a container is killed; -1: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stop" -s a -l all -d 'Stop all running containers'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stop" -s i -l ignore -d 'No such container is no error'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stop" -s l -l latest -d 'Stop the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from stop" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from top" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from top" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from unpause" -l cidfile -d 'Read a container\'s id from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from unpause" -s f -l filter -d 'Those that pass: name=, id=, status=, label=, ancestor=, …' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from unpause" -s a -l all -d 'All to which it applies'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from unpause" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from unpause" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -s m -l memory -d 'Memory limit; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l memory-swap -d 'Memory and swap together; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l memory-reservation -d 'Memory kept from being reclaimed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l memory-high -d 'Memory beyond which the container is slowed and reclaimed from, not killed; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l cpus -d 'CPUs\' worth of time; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -s c -l cpu-shares -d 'Share of CPU time against others, 1024 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l cpu-quota -d 'Microseconds of CPU time in a period; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l cpu-period -d 'Period of --cpu-quota, microseconds, 100000 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l cpuset-cpus -d 'CPUs to run on, as 0-3,5' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l cpuset-mems -d 'Memory nodes to take memory from, as 0-1' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l pids-limit -d 'Most processes and threads; -1 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l device-read-bps -d 'Most bytes a second read from a disk, as /dev/sda:1mb; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l device-write-bps -d 'Most bytes a second written to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l device-read-iops -d 'Most reads a second from a disk, as /dev/sda:100; 0 unlimited' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l device-write-iops -d 'Most writes a second to a disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l blkio-weight -d 'Share of disks against others, 10 to 1000' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l blkio-weight-device -d 'The same on one disk' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l cgroup-conf -d 'Write to a file of cgroup v2, as memory.high=1073741824, whatever the other flags say' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-cmd -d 'Command that tells whether the container is well: a line for the shell, a JSON array, or none' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-interval -d 'Time between two checks, 30s by default; disable: only when asked to' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-timeout -d 'Time after which a check has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-retries -d 'Failures in a row that make the container unhealthy, 3 by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-start-period -d 'Time after the start in which failures do not count' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-on-failure -d 'What follows when it becomes unhealthy: none, kill, restart, stop' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-max-log-count -d 'Results that are kept, 5 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-max-log-size -d 'Bytes of each that are kept, 500 by default; 0: all' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-log-destination -d 'Where the results go: local, events_logger, or a directory for a copy of them' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-startup-cmd -d 'Another check, which runs instead until it has passed' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-startup-interval -d 'Time between two of those, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-startup-timeout -d 'Time after which one of those has failed, 30s by default' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-startup-retries -d 'How often those may fail before the container is started again; 0: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l health-startup-success -d 'How often in a row it must pass; 0: once' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l restart -d 'When to start it again: no, on-failure[:TIMES], always, unless-stopped' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -l no-healthcheck -d 'No health check, whatever the image says'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from update" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from wait" -l condition -d 'Wait for this state: created, initialized, running, paused, stopping, stopped, exited, removing, healthy, unhealthy' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from wait" -s i -l interval -d 'How often to look, where it takes looking: milliseconds, or with a unit (250ms, 2s)' -r
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from wait" -l ignore -d 'No such container is no error: its code is -1'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from wait" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand container; and __fish_seen_subcommand_from wait" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -f -a "create" -d 'Make a volume and print its name'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -f -a "ls" -d 'List volumes'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -f -a "list" -d 'List volumes'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -f -a "inspect" -d 'Show volumes as JSON'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -f -a "rm" -d 'Remove volumes'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -f -a "remove" -d 'Remove volumes'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -f -a "prune" -d 'Remove the volumes that no container uses'
complete -c rless -n "__fish_rless_using_subcommand volume; and not __fish_seen_subcommand_from create ls list inspect rm remove prune exists" -f -a "exists" -d 'End with 0 where there is such a volume, else with 1'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from create" -s d -l driver -d 'What makes it: local' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from create" -s l -l label -d 'Set a label' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from create" -s o -l opt -d 'Options of the driver; there are none' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from create" -l ignore -d 'One that is there already is no error'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from create" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from ls" -s f -l filter -d 'Show those that pass: anonymous=, dangling=, driver=, label=, label!=, name=, since=, until=' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from ls" -l format -d 'Print JSON (`json`), a Go template, or `table` and a template' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from ls" -s q -l quiet -d 'Print names only'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from ls" -s n -l noheading -d 'Do not print headings'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from ls" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from list" -s f -l filter -d 'Show those that pass: anonymous=, dangling=, driver=, label=, label!=, name=, since=, until=' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from list" -l format -d 'Print JSON (`json`), a Go template, or `table` and a template' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from list" -s q -l quiet -d 'Print names only'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from list" -s n -l noheading -d 'Do not print headings'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from list" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from inspect" -s f -l format -d 'Render a Go template instead' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from inspect" -s a -l all -d 'Show all volumes'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from inspect" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from rm" -s t -l time -d 'Seconds to wait for a container to stop before it is killed; -1: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from rm" -s a -l all -d 'Remove all volumes'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from rm" -s f -l force -d 'Remove the containers that use a volume, too; no such volume is no error'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from rm" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from remove" -s t -l time -d 'Seconds to wait for a container to stop before it is killed; -1: for ever' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from remove" -s a -l all -d 'Remove all volumes'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from remove" -s f -l force -d 'Remove the containers that use a volume, too; no such volume is no error'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from remove" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from prune" -l filter -d 'Remove those that pass: anonymous=, label=, label!=, since=, until=' -r
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from prune" -s a -l all -d 'As without it: those with a name, too'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from prune" -s f -l force -d 'Do not ask'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from prune" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand volume; and __fish_seen_subcommand_from exists" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand commit" -s a -l author -d 'Author' -r
complete -c rless -n "__fish_rless_using_subcommand commit" -s c -l change -d 'Change the configuration: CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, USER, VOLUME, WORKDIR, STOPSIGNAL; with -f docker also ONBUILD, HEALTHCHECK' -r
complete -c rless -n "__fish_rless_using_subcommand commit" -s f -l format -d 'oci, or docker' -r
complete -c rless -n "__fish_rless_using_subcommand commit" -l iidfile -d 'Write the image\'s id to a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand commit" -s m -l message -d 'Message, with -f docker' -r
complete -c rless -n "__fish_rless_using_subcommand commit" -l include-volumes -d 'The container\'s mounts become volumes of the image'
complete -c rless -n "__fish_rless_using_subcommand commit" -s p -l pause -d 'Pause the container while its files are looked at'
complete -c rless -n "__fish_rless_using_subcommand commit" -s q -l quiet -d 'Show the id only'
complete -c rless -n "__fish_rless_using_subcommand commit" -s s -l squash -d 'Make one layer of the image and the changes'
complete -c rless -n "__fish_rless_using_subcommand commit" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand cp" -s a -l archive -d 'What is copied into a container belongs to the user it runs as' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand cp" -l overwrite -d 'Let a directory replace something else, and the other way round'
complete -c rless -n "__fish_rless_using_subcommand cp" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand diff" -l format -d '`json`' -r
complete -c rless -n "__fish_rless_using_subcommand diff" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand diff" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand events" -s f -l filter -d 'Show some only: container=, event=, image=, label=, network=, type=, volume=' -r
complete -c rless -n "__fish_rless_using_subcommand events" -l format -d 'Print JSON (`json`) or a Go template' -r
complete -c rless -n "__fish_rless_using_subcommand events" -l since -d 'Show those after a time, or after a duration ago' -r
complete -c rless -n "__fish_rless_using_subcommand events" -l until -d 'Show those before a time, or until a duration from now has passed' -r
complete -c rless -n "__fish_rless_using_subcommand events" -l stream -d 'Go on with those that come (--stream=false: show what there is)' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand events" -l no-trunc -d 'Print whole ids' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand events" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand exec" -l detach-keys -d 'Keys that leave the command running' -r
complete -c rless -n "__fish_rless_using_subcommand exec" -s e -l env -d 'Set an environment variable; NAME alone takes the caller\'s value' -r
complete -c rless -n "__fish_rless_using_subcommand exec" -l env-file -d 'Read environment variables from a file' -r -F
complete -c rless -n "__fish_rless_using_subcommand exec" -l preserve-fds -d 'Pass this many of the caller\'s descriptors, from 3 on' -r
complete -c rless -n "__fish_rless_using_subcommand exec" -l preserve-fd -d 'Pass these descriptors of the caller, under their numbers' -r
complete -c rless -n "__fish_rless_using_subcommand exec" -s u -l user -d 'User and group inside: NAME|UID[:GROUP|GID]' -r
complete -c rless -n "__fish_rless_using_subcommand exec" -s w -l workdir -d 'Working directory inside' -r
complete -c rless -n "__fish_rless_using_subcommand exec" -s d -l detach -d 'Run in the background and print the session\'s id'
complete -c rless -n "__fish_rless_using_subcommand exec" -s i -l interactive -d 'Keep standard input open and pass it to the command'
complete -c rless -n "__fish_rless_using_subcommand exec" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand exec" -l privileged -d 'Give the command all capabilities'
complete -c rless -n "__fish_rless_using_subcommand exec" -s t -l tty -d 'Give the command a terminal'
complete -c rless -n "__fish_rless_using_subcommand exec" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand export" -s o -l output -d 'Write to a file instead of standard output' -r -F
complete -c rless -n "__fish_rless_using_subcommand export" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand healthcheck; and not __fish_seen_subcommand_from run" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand healthcheck; and not __fish_seen_subcommand_from run" -f -a "run" -d 'Run the health check of a container: exit code 0 if it passed, 1 if it failed, 125 if it could not be run or took too long'
complete -c rless -n "__fish_rless_using_subcommand healthcheck; and __fish_seen_subcommand_from run" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand logs" -l since -d 'Show what was written after a time, or in the last duration (10m)' -r
complete -c rless -n "__fish_rless_using_subcommand logs" -l until -d 'Show what is written before a time, or until a duration from now has passed' -r
complete -c rless -n "__fish_rless_using_subcommand logs" -l tail -d 'Show the last lines only; -1: all' -r
complete -c rless -n "__fish_rless_using_subcommand logs" -s f -l follow -d 'Go on until the containers have ended'
complete -c rless -n "__fish_rless_using_subcommand logs" -s l -l latest -d 'Show the last container\'s that was made'
complete -c rless -n "__fish_rless_using_subcommand logs" -s t -l timestamps -d 'Show when each line was written'
complete -c rless -n "__fish_rless_using_subcommand logs" -s n -l names -d 'Show names instead of ids before the lines of several containers'
complete -c rless -n "__fish_rless_using_subcommand logs" -l color -d 'Give each container a colour'
complete -c rless -n "__fish_rless_using_subcommand logs" -l details -d 'For docker\'s scripts: there are no details'
complete -c rless -n "__fish_rless_using_subcommand logs" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand attach" -l detach-keys -d 'Keys that leave the container running' -r
complete -c rless -n "__fish_rless_using_subcommand attach" -l sig-proxy -d 'Pass signals on to the container' -r -f -a "true\t''
false\t''"
complete -c rless -n "__fish_rless_using_subcommand attach" -s l -l latest -d 'Attach to the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand attach" -l no-stdin -d 'Do not pass standard input to the container'
complete -c rless -n "__fish_rless_using_subcommand attach" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c rless -n "__fish_rless_using_subcommand inspect" -s f -l format -d 'Render a Go template for each instead of JSON' -r
complete -c rless -n "__fish_rless_using_subcommand inspect" -s t -l type -d 'What the names are: container, image, volume, all' -r
complete -c rless -n "__fish_rless_using_subcommand inspect" -s l -l latest -d 'Show the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand inspect" -s s -l size -d 'Add what containers take on disk'
complete -c rless -n "__fish_rless_using_subcommand inspect" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand port" -s a -l all -d 'Show those of all containers'
complete -c rless -n "__fish_rless_using_subcommand port" -s l -l latest -d 'Show those of the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand port" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand stats" -l format -d 'Print JSON (`json`), a Go template, or `table` and a template' -r
complete -c rless -n "__fish_rless_using_subcommand stats" -s i -l interval -d 'Seconds between two looks' -r
complete -c rless -n "__fish_rless_using_subcommand stats" -s a -l all -d 'Show those that do not run, too'
complete -c rless -n "__fish_rless_using_subcommand stats" -s l -l latest -d 'Show the last container that was made'
complete -c rless -n "__fish_rless_using_subcommand stats" -l no-reset -d 'Do not clear the screen between two looks'
complete -c rless -n "__fish_rless_using_subcommand stats" -l no-stream -d 'Look once'
complete -c rless -n "__fish_rless_using_subcommand stats" -l no-trunc -d 'Do not shorten ids'
complete -c rless -n "__fish_rless_using_subcommand stats" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand info" -s f -l format -d 'Print JSON (`json`) or render a Go template' -r
complete -c rless -n "__fish_rless_using_subcommand info" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand top" -s l -l latest -d 'The last container that was made'
complete -c rless -n "__fish_rless_using_subcommand top" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand version" -s f -l format -d 'Print JSON (`json`) or render a Go template' -r
complete -c rless -n "__fish_rless_using_subcommand version" -s h -l help -d 'Print help'
complete -c rless -n "__fish_rless_using_subcommand generate" -s h -l help -d 'Print help'
