"""A ring of samples on disk that workers write and a training reads, and the options of every training."""
import os
import time

import numpy as np


def create_ring(folder, slots, workers, **arrays):
    """Makes the files of a ring: NAME=(dtype, shape of one sample). `count.npy`, which says that it is there, comes last and
    whole; it holds what each of the workers has written."""
    os.makedirs(folder, exist_ok=True)
    for name, (dtype, shape) in arrays.items():
        np.lib.format.open_memmap(f'{folder}/{name}.npy', mode='w+', dtype=dtype, shape=(slots, *shape))
    np.save(f'{folder}/new.npy', np.zeros(workers, np.int64))
    os.replace(f'{folder}/new.npy', f'{folder}/count.npy')


def ensure_ring(folder, slots, workers, **arrays):
    """The ring of an earlier run goes on, with as many workers as it was made for: slots belong to workers."""
    if not os.path.exists(f'{folder}/count.npy'):
        return create_ring(folder, slots, workers, **arrays)
    found = len(np.load(f'{folder}/count.npy', mmap_mode='r'))
    if found != workers:
        raise SystemExit(f'{folder} was made for {found} workers: --workers {found}, or another --ring')


def open_ring(folder, names, mode='r', wait_for=0):
    """The arrays and, last, the number of samples that each worker has written; waits until `wait_for` samples are there."""
    told = False
    while wait_for and not (os.path.exists(f'{folder}/count.npy') and filled(np.load(f'{folder}/count.npy'), 1 << 40) >= wait_for):
        if not told:
            print(f'waiting for {wait_for} samples in {folder}', flush=True)
        told = True
        time.sleep(2)
    return [np.load(f'{folder}/{name}.npy', mmap_mode=mode) for name in (*names, 'count')]


class Slots:
    """The slots of one worker, in a circle; after the first circle it works only `duty` of the time."""

    def __init__(self, worker, workers, total, count, duty):
        self.mine = np.arange(worker, total, workers)
        self.count, self.worker, self.duty, self.began = count, worker, duty, time.time()
        self.position = int(count[worker])

    def next(self, n):
        self.began = time.time()
        return self.mine[np.arange(self.position, self.position + n) % len(self.mine)]

    def written(self, n):
        self.position += n
        self.count[self.worker] = self.position
        if self.position >= len(self.mine):
            time.sleep((time.time() - self.began) * (1 / self.duty - 1))


def filled(count, slots):
    """How many slots, counted from the first, hold a sample: the workers take turns, so the slowest one decides."""
    return min(slots, int(np.min(count)) * len(count))


def training_options(parser, lr, batch, steps, decay=0.02):
    """The options of every training."""
    parser.add_argument('--out', required=True, help='folder of checkpoints and log')
    parser.add_argument('--lr', type=float, default=lr)
    parser.add_argument('--batch', type=int, default=batch)
    parser.add_argument('--steps', type=int, default=steps, help='in all; with --anneal, from here')
    parser.add_argument('--anneal', action='store_true', help='descend to zero from the last checkpoint')
    parser.add_argument('--decay', type=float, default=decay)
    parser.add_argument('--average', type=float, default=0.9995)
    parser.add_argument('--threads', type=int, default=2)
    parser.add_argument('--seed', type=int, default=0)


def prepare_options(sub):
    """The options of every `prepare`."""
    p = sub.add_parser('prepare')
    for name in ('faces', 'models', 'work'):
        p.add_argument(f'--{name}', required=True)


def generate_options(sub, pool, kilobytes, duty=0.12):
    """The options of every `generate`."""
    p = sub.add_parser('generate')
    for name in ('models', 'work', 'ring'):
        p.add_argument(f'--{name}', required=True)
    p.add_argument('--pool', type=int, default=pool, help=f'slots of {kilobytes} kB')
    p.add_argument('--workers', type=int, default=2)
    p.add_argument('--duty', type=float, default=duty, help='share of the time, once the ring is full')
