/*
 * The C library knows LINK_MAX of a few file systems by their statfs type and says 127 for every other one, FUSE and
 * overlayfs among them; the suite then leaves its case of too many links out. Preloaded for all file systems of the
 * comparison: ext4's number, which ours has too.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <unistd.h>

long pathconf(const char *path, int name)
{
	long (*next)(const char *, int);

	if (name == _PC_LINK_MAX)
		return 65000;
	next = (long (*)(const char *, int))dlsym(RTLD_NEXT, "pathconf");
	return next(path, name);
}
