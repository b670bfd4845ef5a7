# What every attempt has at hand. Its own code follows as the body of `attempt`; what that returns, or the name of the
# error that it fails with, is printed.
import ctypes, errno, os, stat, struct, sys, time

LIBC = ctypes.CDLL(None, use_errno=True)
LIBC.syscall.restype = ctypes.c_long


def given(name):
    """A value from the test."""
    return os.environ["GIVEN_" + name]


def call(name, *arguments):
    """A system call, past all that a library would check."""
    number = CALLS[name] if isinstance(name, str) else name
    arguments = [ctypes.c_long(each) if isinstance(each, int) else each for each in arguments]
    result = LIBC.syscall(ctypes.c_long(number), *arguments)
    if result == -1:
        raise OSError(ctypes.get_errno(), str(name))
    return result


def permitted(name, *arguments):
    """Whether a call that is made to fail gets as far as its arguments."""
    try:
        call(name, *arguments)
    except OSError as error:
        if error.errno in (errno.EPERM, errno.EACCES, errno.ENOSYS):
            raise
    return "permitted"


def in_child(function):
    """Runs `function` in a process of its own, and fails as it does."""
    pid = os.fork()
    if pid == 0:
        try:
            function()
            os._exit(0)
        except OSError as error:
            os._exit(error.errno)
    fail_as(pid)


def fail_as(pid):
    """Fails as the child `pid` does, which says so by its exit code."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code:
        raise OSError(code, "in a child")


def mounts():
    """Mount points, of which one could be a way out."""
    with open("/proc/self/mountinfo") as table:
        return [line.split(" ")[4] for line in table]


def read(path):
    with open(path) as file:
        return file.read().strip()


def write(path, text):
    # Errors must show, and those of a file that is closed by the way do not.
    with open(path, "w") as file:
        file.write(text)


def ready():
    """Tells the test that everything is in place, and waits until it is done."""
    print("ready", flush=True)
    sys.stdin.read()
