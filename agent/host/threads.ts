// Node's file operations run in a pool of threads, four when nothing is said: fifty VMs that start at once would wait for one another's fsync,
// which the kernel makes for many at a time. Imported before all else, since the first operation fixes the size. Source: libuv, threadpool.
process.env['UV_THREADPOOL_SIZE'] ??= '32';
