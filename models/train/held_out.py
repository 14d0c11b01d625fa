"""Lays out the people of fold 5 for `facelatch eval recognition`: the whole chain on people nobody trained on.

Usage: held_out.py --faces DIR --out DIR      people/ (links) and pairs.txt: ten folds of 30 + 30 out of the 600 pairs of fold 5
"""
import argparse
import os
import sys

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import common


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--faces', required=True)
    parser.add_argument('--out', required=True)
    a = parser.parse_args()
    people = os.path.join(a.out, 'people')
    os.makedirs(people, exist_ok=True)
    for name in sorted(common.fold5(a.faces)):
        link = os.path.join(people, name)
        if not os.path.lexists(link):
            os.symlink(os.path.abspath(os.path.join(a.faces, 'lfw', 'people', name)), link)
    lines = open(os.path.join(a.faces, 'lfw', 'pairs.txt')).read().splitlines()[2401:]
    same, different = lines[:300], lines[300:]
    assert all(len(l.split()) == 3 for l in same) and all(len(l.split()) == 4 for l in different)
    with open(os.path.join(a.out, 'pairs.txt'), 'w') as f:
        print('10\t30', file=f)
        for k in range(0, 300, 30):
            print(*same[k:k + 30], *different[k:k + 30], sep='\n', file=f)
    print(len(os.listdir(people)), 'people')


if __name__ == '__main__':
    main()
