"""stub"""
def write_report(folders, out): pass
