"""A training that can be stopped and resumed.

Schedule: warm-up, then a constant learning rate for as long as one likes, then a linear descent to zero
(`anneal`). A cosine over a fixed time would have to know the end at the start; a run that is interrupted,
and goes on another day, does not. Everything counts steps, never minutes.
"""
import json
import os
import signal
import time

import numpy as np
import torch


# Of the averaged weights during a descent: 500 steps.
DESCENT_AVERAGE = 0.998


class Run:
    """One training: network, averaged weights, optimiser, schedule, log, checkpoints."""

    def __init__(self, net, out, options):
        self.device = 'cuda' if torch.cuda.is_available() else 'cpu'
        torch.set_num_threads(options.threads)
        os.makedirs(out, exist_ok=True)
        self.net = net.to(self.device, memory_format=torch.channels_last)
        self.out, self.o, self.step, self.seconds = out, options, 0, 0.0
        many = [p for p in net.parameters() if p.ndim > 1]
        few = [p for p in net.parameters() if p.ndim <= 1]
        self.opt = torch.optim.AdamW([{'params': many, 'weight_decay': options.decay}, {'params': few, 'weight_decay': 0}],
                                     lr=options.lr, betas=(0.9, 0.99))
        self.average = {k: v.detach().clone() for k, v in net.state_dict().items()}
        self.first = 0  # step at which the descent, when this is one, began
        self.kept, began_at = f'{out}/{"descent" if options.anneal else "last"}.pt', f'{out}/last.pt'
        source = self.kept if os.path.exists(self.kept) else began_at
        if os.path.exists(source):
            state = torch.load(source, map_location=self.device, weights_only=True)
            net.load_state_dict(state['net'])
            self.opt.load_state_dict(state['opt'])
            self.average, self.step, self.seconds = state['average'], state['step'], state['seconds']
            self.first = state['first'] if source == self.kept else self.step
            print(f'goes on from step {self.step}, {self.seconds / 60:.0f} minutes', flush=True)
        self.stopped = False
        for s in (signal.SIGTERM, signal.SIGINT):
            signal.signal(s, lambda *_: setattr(self, 'stopped', True))
        self.rng = np.random.default_rng((options.seed, self.step))
        torch.manual_seed(options.seed + self.step)
        self.log, self.sums, self.began, self.saved = open(f'{out}/log.jsonl', 'a'), [], time.time(), time.time()

    def done(self):
        """Steps of the run that was asked for: all of them, or those of the descent."""
        return self.step - self.first if self.o.anneal else self.step

    def rate(self):
        warm = min(1.0, (self.step + 1) / 300)
        return self.o.lr * warm * (max(0.0, 1 - self.done() / self.o.steps) if self.o.anneal else 1.0)

    def going(self):
        return not self.stopped and self.done() < self.o.steps

    def update(self, loss, parts):
        """One step of the optimiser and of the average. `parts` are the named losses, for the log."""
        for g in self.opt.param_groups:
            g['lr'] = self.rate()
        self.opt.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.opt.step()
        self.step += 1
        # A descent is short: an average over more of it would hold the weights from before.
        keep = min(DESCENT_AVERAGE if self.o.anneal else self.o.average, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            now = self.net.state_dict()
            names = [k for k, v in now.items() if v.dtype.is_floating_point]
            torch._foreach_lerp_([self.average[k] for k in names], [now[k] for k in names], 1 - keep)
        self.sums.append([float(v) for v in parts.values()])
        if self.step % 200 == 0:
            self.report(list(parts))
        if time.time() - self.saved > 300:
            self.save()

    def report(self, names):
        seconds = self.seconds + time.time() - self.began
        rate = 200 * self.o.batch / max(1e-9, seconds - getattr(self, 'reported', self.seconds))
        self.reported = seconds
        means = dict(zip(names, np.round(np.mean(self.sums, 0), 5).tolist()))
        self.sums = []
        row = dict(step=self.step, minutes=round(seconds / 60, 1), rate=round(rate), lr=float(f'{self.rate():.3g}'), **means)
        print(row, flush=True)
        self.log.write(json.dumps(row) + '\n')
        self.log.flush()

    def save(self):
        """What a stopped run goes on from. A descent has a file of its own, so that a longer run can follow it."""
        self.saved = time.time()
        state = dict(net=self.net.state_dict(), opt=self.opt.state_dict(), average=self.average, step=self.step, first=self.first,
                     seconds=self.seconds + time.time() - self.began)
        whole(state, self.kept)

    def finish(self):
        """At the end of a run the weights and their average, each ready for export; of one that was stopped, only its state."""
        self.save()
        if self.done() >= self.o.steps:
            name = 'annealed' if self.o.anneal else 'average'
            whole(self.average, f'{self.out}/{name}.pt')
            if self.o.anneal:
                whole(self.net.state_dict(), f'{self.out}/annealed_last.pt')
                os.remove(self.kept)
        print('stopped' if self.stopped else 'done', 'at step', self.step, flush=True)


def whole(value, path):
    """A file that is there whole or not at all."""
    torch.save(value, path + '.part')
    os.replace(path + '.part', path)
