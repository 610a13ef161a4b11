using System;
using System.Diagnostics;
using System.IO;
using System.IO.MemoryMappedFiles;
using System.Threading;

// Threads dirty the pages of a mapped file while it is written back again and again; every now and then the file is
// truncated to nothing before its changed pages are written once more.
public static class Storm
{
    public static string Run(string path, int mebibytes, int threads, int seconds, int cutEvery, int seed)
    {
        const int Page = 4096;
        long size = mebibytes * 1048576L, dirtied = 0, rounds = 0, cuts = 0, truncated = 0;
        var clock = Stopwatch.StartNew();
        var stream = new FileStream(path, FileMode.Create, FileAccess.ReadWrite, FileShare.None);
        while (clock.ElapsedMilliseconds < seconds * 1000L)
        {
            stream.SetLength(size);
            var map = MemoryMappedFile.CreateFromFile(stream, null, size, MemoryMappedFileAccess.ReadWrite, null, HandleInheritability.None, true);
            var view = map.CreateViewAccessor(0, size);
            bool stop = false;
            var touched = new bool[size / Page];
            var workers = new Thread[threads];
            for (int number = 0; number < threads; number++)
            {
                var chance = new Random(seed + number + (int)cuts * 1000);
                workers[number] = new Thread(() =>
                {
                    long own = 0;
                    while (!Volatile.Read(ref stop))
                    {
                        long page = chance.Next((int)(size / Page));
                        byte value = (byte)chance.Next(1, 256);
                        for (int at = 0; at < Page; at += 64) view.Write(page * Page + at, value);
                        touched[page] = true;
                        own++;
                    }
                    Interlocked.Add(ref dirtied, own);
                });
                workers[number].Start();
            }
            long until = cutEvery > 0 ? clock.ElapsedMilliseconds + cutEvery : seconds * 1000L;
            while (clock.ElapsedMilliseconds < Math.Min(until, seconds * 1000L)) { view.Flush(); rounds++; }
            Volatile.Write(ref stop, true);
            foreach (var worker in workers) worker.Join();
            if (cutEvery > 0)
            {
                // Closed by its handle: to dispose of it would write it all again.
                view.SafeMemoryMappedViewHandle.Dispose();
                map.Dispose();
                stream.SetLength(0);
                cuts++;
                foreach (bool one in touched) if (one) truncated++;
            }
            else { view.Dispose(); map.Dispose(); }
        }
        stream.Dispose();
        return string.Format("{{\"mebibytes\": {0}, \"threads\": {1}, \"seconds\": {2}, \"pages_dirtied\": {3}, \"rounds\": {4}, \"cuts\": {5}, \"pages_truncated\": {6}}}",
            mebibytes, threads, (clock.ElapsedMilliseconds / 1000.0).ToString(System.Globalization.CultureInfo.InvariantCulture), dirtied, rounds, cuts, truncated);
    }
}
