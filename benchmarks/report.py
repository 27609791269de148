def text(r): 
    import json; return json.dumps(r,indent=0)
def write(r): pass
