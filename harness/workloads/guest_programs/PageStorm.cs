using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Globalization;
using System.Threading;

// Threads dirty random pages of more memory than there is, and check each page that they meet again.
public static class PageStorm
{
    // In words of 8 bytes; one word in each cache line tells whether the page is what was put there.
    const int Page = 512, Chunk = 2097152, Line = 8;

    public static string Run(int mebibytes, int threads, int seconds, int seed)
    {
        var chunks = new List<long[]>();
        for (long left = mebibytes * 131072L; left > 0; left -= Chunk) chunks.Add(new long[(int)Math.Min(left, Chunk)]);
        long pages = mebibytes * 131072L / Page, dirtied = 0, met = 0, wrong = 0;
        var clock = Stopwatch.StartNew();
        var workers = new Thread[threads];
        for (int number = 0; number < threads; number++)
        {
            int mine = number;
            workers[number] = new Thread(() =>
            {
                // Each thread has pages of its own: number, number + threads, and so on.
                long own = (pages - mine + threads - 1) / threads, written = 0, checks = 0, bad = 0;
                var values = new long[own];
                var chance = new Random(seed + mine);
                // The first time through every page is filled, however long that takes: only then is the memory used up.
                for (long at = 0; at < own || clock.ElapsedMilliseconds < seconds * 1000L; at++)
                {
                    long which = at < own ? at : chance.Next((int)own);
                    long page = which * threads + mine;
                    var chunk = chunks[(int)(page * Page / Chunk)];
                    int start = (int)(page * Page % Chunk);
                    if (values[which] != 0)
                    {
                        checks++;
                        if (!Holds(chunk, start, values[which])) bad++;
                    }
                    values[which] = ((long)chance.Next(1, int.MaxValue) << 32) | (uint)page;
                    for (int word = 0; word < Page; word += Line) chunk[start + word] = values[which] ^ word;
                    written++;
                }
                for (long which = 0; which < own; which++)
                {
                    long page = which * threads + mine;
                    checks++;
                    if (!Holds(chunks[(int)(page * Page / Chunk)], (int)(page * Page % Chunk), values[which])) bad++;
                }
                Interlocked.Add(ref dirtied, written);
                Interlocked.Add(ref met, checks);
                Interlocked.Add(ref wrong, bad);
            });
            workers[number].Start();
        }
        foreach (var worker in workers) worker.Join();
        return string.Format(CultureInfo.InvariantCulture,
            "{{\"mebibytes\": {0}, \"threads\": {1}, \"seconds\": {2}, \"pages_dirtied\": {3}, \"pages_checked\": {4}, \"pages_wrong\": {5}}}",
            mebibytes, threads, clock.ElapsedMilliseconds / 1000.0, dirtied, met, wrong);
    }

    static bool Holds(long[] chunk, int start, long value)
    {
        for (int word = 0; word < Page; word += Line) if (chunk[start + word] != (value ^ word)) return false;
        return true;
    }
}
